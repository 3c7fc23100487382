import { run } from './connected/run.ts';

await run(process);
