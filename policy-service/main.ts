import { holdHangUps } from '../common/hang-up.ts';

// Before the rest is loaded, which takes a while.
holdHangUps();
const { runProgram } = await import('../common/program.ts');
const { policyServiceProgram } = await import('./program.ts');
await runProgram(policyServiceProgram());
