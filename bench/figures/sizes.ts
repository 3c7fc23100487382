import { stat } from 'node:fs/promises';

import { atMost, type Figure, figure } from '../figure.ts';
import { loadedModules } from '../loaded-modules.ts';
import type { Stage } from '../stage.ts';

export const MOST_LIST_BYTES = 12 * 1024 - 1;
const INSTANCES = 50;

export async function sizeFigures(stage: Stage): Promise<readonly Figure[]> {
  const modules = await loadedModules(stage);
  return [
    figure('tools/list', 'bytes', await listBytes(stage), { goal: atMost(MOST_LIST_BYTES) }),
    figure('the program', 'bytes', (await stat(stage.scripts.serve)).size),
    figure('modules of the bundle that ran before tools/list', 'count', modules.bundled.length),
    figure('modules of Node loaded before tools/list', 'count', modules.node.length),
    ...(await resultFigures(stage)),
  ];
}

/** Size of tools/list's result as JSON. */
export async function listBytes(stage: Stage): Promise<number> {
  await using server = stage.spawnServer({});
  await server.initialize();
  const { bytes } = await server.listTools();
  return bytes;
}

/** Size of each tool's default answer, the whole message. Tools that only change a session answer little. */
async function resultFigures(stage: Stage): Promise<Figure[]> {
  await using fleet = await stage.startFleet({ live: INSTANCES });
  await using server = await stage.startServer({ registry: await stage.registryOf(fleet.ports) });
  const instance = 'project-0';
  const sending = server.call('send', { instance, message: 'Hi' });
  await fleet.prompted();
  await fleet.finish('Hello. '.repeat(1_000));
  const figures = [figure(`result of send with a long answer`, 'bytes', (await sending).bytes)];
  const reads: readonly (readonly [string, object])[] = [
    ['instances', {}],
    ['list_instances', {}],
    ['refresh_instances', {}],
    ['read', { instance }],
    ['list_sessions', { instance }],
    ['get_session', { instance, session_id: 'ses' }],
    ['get_status', { instance }],
    ['get_diff', { instance }],
    ['list_files', { instance, path: 'src/a-folder' }],
    ['read_file', { instance, path: 'src/a-folder/some-file-0.ts' }],
    ['search', { instance, query: 'needle' }],
    ['create_session', { instance }],
  ];
  for (const [name, args] of reads) {
    const { bytes, text, data } = await server.call(name, args);
    const note = `text ${Buffer.byteLength(text)}, structure ${Buffer.byteLength(JSON.stringify(data))}`;
    figures.push(figure(`result of ${name}, ${INSTANCES} instances`, 'bytes', bytes, { note }));
  }
  return figures;
}
