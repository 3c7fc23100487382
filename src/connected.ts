import { runConnected } from './connected/run.ts';
import { runProgram } from './base/program.ts';

await runProgram('opencode-connected', process, (output) => runConnected(process, output));
