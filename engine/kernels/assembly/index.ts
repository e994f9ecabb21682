export { attention, logCodes, rope, storeKv } from './attention';
export { add, matmul, rmsNorm, swiglu } from './linear';
export { plainKeys, repetition } from './merge';
export { noteProbe, noteQuery } from './statistics';
