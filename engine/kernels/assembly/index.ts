export { attention, logCodes, rope, storeKv, weigh } from './attention';
export { add, matmul, rmsNorm, swiglu } from './linear';
export { plainKeys, repetition } from './merge';
export { matmulInt8, quantize } from './quantized';
export { noteProbe, noteQuery } from './statistics';
