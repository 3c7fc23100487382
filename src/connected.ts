import { run } from './connected/run.ts';
import { runProgram } from './base/program.ts';

await runProgram('opencode-connected', process, (output) => run(process, output));
