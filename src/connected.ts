import { run } from './connected/run.ts';
import { runProgram } from './program.ts';

await runProgram('opencode-connected', process, (output) => run(process, output));
