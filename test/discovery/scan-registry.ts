/** Run as a process of its own, in a namespace that the test made: prints one scan of the directory named as its argument. */
import { registrySource } from './registry-stage.ts';

const source = registrySource(process.argv[2]!);
process.stdout.write(JSON.stringify(await source.scan(new AbortController().signal)));
await source.close();
