import type uPlotType from 'uplot';

declare global {
  /** The library's own script puts it there. */
  const uPlot: typeof uPlotType;
  type UPlot = uPlotType;
}
