/** Figures and conditions of a report in bench/results, by its name. */
export type FiguresOf = (report: string) => Readonly<Record<string, string | number | boolean>>;

const FORMATS: Readonly<Record<string, (value: number) => string>> = {
  '%': (value) => `${(100 * value).toFixed(0)} %`,
  '.1%': (value) => `${(100 * value).toFixed(1)} %`,
  '.0': (value) => value.toFixed(0),
  '.1': (value) => value.toFixed(1),
  '.2': (value) => value.toFixed(2),
  '.3': (value) => value.toFixed(3),
  ',': (value) => value.toLocaleString('en-US', { maximumFractionDigits: 0 }),
};

/**
 * Replaces `{{report.figure}}`, with a format as in `{{report.figure:.2}}`, the ratio of two as in
 * `{{report.a / report.b:.2}}`, and `{{table NAME}}`.
 *
 * @throws {RangeError} naming what stands in the braces, if nothing has that name.
 */
export function render(template: string, figuresOf: FiguresOf, tables: Readonly<Record<string, () => string>>): string {
  return template.replaceAll(/\{\{(.*?)\}\}/g, (_, inner: string) => {
    const unknown = () => new RangeError(`{{${inner}}}: there is no such figure, table or format`);
    const table = /^table (.+)$/.exec(inner)?.[1];
    if (table !== undefined) {
      const make = tables[table];
      if (make === undefined) throw unknown();
      return make().trimEnd();
    }
    const [, first = '', second, format] = /^(\S+?)(?: \/ (\S+?))?(?::(\S+))?$/.exec(inner) ?? [];
    const value = (path: string) => {
      const [, report = '', name = ''] = /^([^.]+)\.(.+)$/.exec(path) ?? [];
      const found = figuresOf(report)[name];
      if (found === undefined) throw unknown();
      return found;
    };
    const figure = second === undefined ? value(first) : Number(value(first)) / Number(value(second));
    if (format === undefined) return `${figure}`;
    const write = FORMATS[format];
    if (write === undefined || !Number.isFinite(Number(figure))) throw unknown();
    return write(Number(figure));
  });
}

/**
 * Puts text between `<!-- NAME: ... -->` and `<!-- end of NAME -->`.
 *
 * @throws {RangeError} if the text has no such block.
 */
export function replaceBlock(text: string, name: string, content: string): string {
  const block = new RegExp(`(<!-- ${name}:[^>]*-->\n).*?(<!-- end of ${name} -->)`, 's');
  if (!block.test(text)) throw new RangeError(`there is no block "${name}" to fill`);
  return text.replace(block, (_, before: string, after: string) => `${before}${content.trimEnd()}\n${after}`);
}
