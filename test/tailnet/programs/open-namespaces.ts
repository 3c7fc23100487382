import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { Namespaces } from '../../rig/tailnet-namespaces.ts';

// Makes a namespace with a process in it, tells its name, and waits to be killed.
const spaces = await Namespaces.open(1);
const sleeper = spawn('ip', ['netns', 'exec', spaces.hub, 'sleep', 'infinity'], { stdio: 'ignore' });
await once(sleeper, 'spawn');
process.stdout.write(`${spaces.hub}\n`);
setInterval(() => {}, 60_000);
