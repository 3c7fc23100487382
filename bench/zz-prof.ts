import { setTimeout as delay } from 'node:timers/promises';
import { spawn } from 'node:child_process';
import { Stage } from './stage.ts';
import { get } from './get.ts';
import { processorMs, residentMb } from './proc.ts';
import { until } from '../test/rig/wait.ts';
import { freePort } from '../test/rig/ports.ts';
await using stage = await Stage.open();
await using fleet = await stage.startFleet({ live: 40 });
const registry = await stage.registryOf(fleet.ports);
await using tailscaled = await stage.startTailscaled({ address: '127.0.0.2', peer: '127.0.0.1', strangers: 0 });
const port = await freePort();
const execArgs = (process.env['EXEC'] ?? '').split(' ').filter(Boolean);
const child = spawn(process.execPath, [...execArgs, stage.scripts.server, 'node', '--registry-dir', registry.path], { cwd: '/tmp/w1-prof', stdio: ['ignore','inherit','inherit'],
 env: { PATH: process.env['PATH'] ?? '', HOME: stage.folder, OPENCODE_MCP_MDNS: '0', TAILSCALE_SOCKET: tailscaled.place.socketPath, OPENCODE_NODE_PORT: String(port), OPENCODE_MCP_LOG_LEVEL: 'error' } });
const list = { host: '127.0.0.2', port, path: '/opencode-mcp/v1/instances' };
await until('listen', () => get(list).then(() => true, () => false));
await until('all', async () => JSON.parse((await get(list)).text).instances.length === 40);
const secs = Number(process.argv[2] ?? 30);
await delay(Number(process.env['WARM'] ?? 20) * 1000);
await fleet.count();
const pid = child.pid ?? 0;
for (let i=0;i<Number(process.env['N'] ?? 1);i++) {
const a = processorMs(pid);
await delay(secs*1000);
console.log((processorMs(pid)-a)/secs, 'ms/s', residentMb(pid), JSON.stringify(await fleet.count()));
}
child.kill('SIGTERM');
await new Promise(r => child.once('exit', r));
