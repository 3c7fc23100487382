import { spawn } from 'node:child_process';
import { Stage } from './stage.ts';
import { processorMs } from './proc.ts';
import { completeRows, type Listing } from './figures/listing.ts';
await using stage = await Stage.open(`/tmp/exp/${process.argv[2]}/opencode-mcp.js`);
await using fleet = await stage.startFleet({ live: 200 });
const registry = await stage.registryOf(fleet.ports);
const hogs = Array.from({ length: Number(process.argv[3] ?? 6) }, () => spawn(process.execPath, ['-e', 'const t=Date.now();while(Date.now()-t<45000);']));
try {
  await using server = await stage.startServer({ registry });
  for (let k = 0; k < 5; k++) { const p = processorMs(server.pid); const { ms, data } = await server.call<Listing>('instances', { limit: 500 });
    console.log(`${ms.toFixed(0)}ms cpu${(processorMs(server.pid) - p).toFixed(0)} complete ${completeRows(data)}`, JSON.stringify(await fleet.count().then((c) => c.requests)), data.notes.join('; ')); }
} finally { for (const h of hogs) h.kill('SIGKILL'); }
