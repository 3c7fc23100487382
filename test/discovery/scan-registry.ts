/** Runs as a separate process in a namespace made by the test; prints one scan of the directory given as its argument. */
import { registrySource } from './registry-stage.ts';

const source = registrySource(process.argv[2]!);
process.stdout.write(JSON.stringify(await source.scan(new AbortController().signal)));
await source.close();
