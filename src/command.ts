import { run } from './commands/run.ts';
import { runProgram } from './base/program.ts';

await runProgram('opencode-mcp', process, (output) => run(process, output));
