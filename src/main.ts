import './lean-heap.ts';
import { run } from './commands/run.ts';

await run(process);
