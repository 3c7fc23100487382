import { chown, copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { needRoot } from '../discovery/as-root.ts';
import { type McpChild, SERVER_SCRIPT, startMcpChild } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { startOpencode } from '../rig/opencode/opencode.ts';
import { filesIn } from '../rig/programs/connected-child.ts';
import { openRegistry } from '../rig/registry.ts';
import { startScriptedModel } from '../rig/model/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';

const DOCKER = join(import.meta.dirname, '../../docs/docker');
/** The owner of the registry: a uid that no password database has, inside as outside. */
const OWNER = 54_321;

const NAMESPACES = ['--mount', '--pid', '--fork', '--kill-child', '--ipc'] as const;

/**
 * What `docker run --network host --user … --read-only -v REGISTRY:/registry:ro` makes, by the same namespaces: a root of its own with
 * nothing writable, processes of its own, the host's network, no capability. $1: the root; $2: the registry; $3: uid and gid; $4: the
 * options of the mount at /state, or nothing for none.
 */
const CONTAINER = `set -e
root=$1 registry=$2 user=$3 state=$4; shift 4
mount --bind "$root" "$root"
for folder in usr bin sbin lib lib64; do
  [ -e "/$folder" ] || continue
  if [ -L "/$folder" ]; then cp -P "/$folder" "$root/$folder"; else mkdir "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; fi
done
mount -t proc proc "$root/proc"
mount --bind "$registry" "$root/registry"
mount -o remount,bind,ro "$root/registry"
mount -o remount,bind,ro "$root"
if [ -n "$state" ]; then mount -t tmpfs -o "$state" tmpfs "$root/state"; fi
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set=-all --no-new-privs env -i "$@"`;

interface Place extends AsyncDisposable {
  readonly registry: string;
  start(user: number, state: string): Promise<McpChild>;
}

/** The files of the image: what the Dockerfile copies, where it copies it to. */
async function openPlace(): Promise<Place> {
  const temp = tempDir('container');
  const dockerfile = await readFile(join(DOCKER, 'Dockerfile'), 'utf8');
  const entry = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(dockerfile)?.[1] ?? '') as [string, string];
  const command = JSON.parse(/^CMD (.*)$/m.exec(dockerfile)?.[1] ?? '') as string[];
  const variables = (/^ENV (.*)$/m.exec(dockerfile)?.[1] ?? '').split(' ');
  const apart = Object.entries(NO_MULTICAST).map(([name, value]) => `${name}=${value}`);
  const env = ['PATH=/usr/bin:/bin', ...apart, 'HEALTH_CHECK_TIMEOUT_MS=15000', ...variables];
  const registry = join(temp.path, 'registry');
  await mkdir(registry, { mode: 0o700 });
  let made = 0;
  return {
    registry,
    async start(user, state) {
      const root = join(temp.path, `root-${(made += 1)}`);
      for (const folder of ['proc', 'registry', 'state', dirname(entry[1])])
        await mkdir(join(root, folder), { recursive: true });
      // `COPY --from=build /src/dist/opencode-mcp*.js`
      const built = (await readdir(dirname(SERVER_SCRIPT))).filter((name) => /^opencode-mcp.*\.js$/.test(name));
      const target = dirname(join(root, entry[1]));
      await Promise.all(built.map((name) => copyFile(join(dirname(SERVER_SCRIPT), name), join(target, name))));
      return startMcpChild({
        prefix: ['unshare', ...NAMESPACES, 'sh', '-c', CONTAINER, 'sh', root, registry, String(user), state, ...env],
        node: process.execPath,
        script: entry[1],
        args: command,
      });
    },
    [Symbol.asyncDispose]: () => temp.close(),
  };
}

describe.skipIf(isMissing(PINNED_OPENCODE))('in a container like that of docs/docker', () => {
  test('the server lists and drives a registered opencode as the owner of the registry, and as no other user', async (context) => {
    needRoot(context);
    await using model = await startScriptedModel();
    await using opencode = await startOpencode({ model, password: 'of the laptop' });
    await using place = await openPlace();
    const registry = await openRegistry(place.registry);
    await registry.add(
      { name: 'laptop-web', id: 'id-1', port: opencode.port, localPort: opencode.port, cwd: opencode.directory },
      { password: 'of the laptop' },
    );
    const paths = [place.registry, join(place.registry, '.credentials'), ...(await filesIn(place.registry))];
    await Promise.all(paths.map((path) => chown(path, OWNER, OWNER)));
    const before = await readdir(place.registry, { recursive: true });

    await using server = await place.start(OWNER, 'mode=1777');
    expect((await server.call('instances')).result.structuredContent).toMatchObject({
      instances: [{ name: 'laptop-web', state: 'idle' }],
    });
    // Without a single writable directory.
    await using strict = await place.start(OWNER, '');
    const sent = await strict.call('send', { instance: 'laptop-web', message: 'echo: from a container' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'from a container' });

    await using stranger = await place.start(65_534, 'mode=1777');
    const text = JSON.stringify((await stranger.call('instances')).result);
    expect(text).toContain(`run this as uid ${OWNER} (docker run --user ${OWNER}:${OWNER})`);
    expect(text).not.toContain('laptop-web');
    expect(await readdir(place.registry, { recursive: true })).toEqual(before);
  });
});
