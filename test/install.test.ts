import { execFile } from 'node:child_process';
import { cp, readdir, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

import { openFreshMachine } from './rig/programs/fresh-machine.ts';
import { isMissing } from './rig/opencode/opencode-binaries.ts';
import { tempDir } from './rig/temp.ts';

const run = promisify(execFile);

const root = join(import.meta.dirname, '..');
const LINTER = join(root, 'test/components/node_modules/dockerfile-utils');

/** The package of this name on npm belongs to another project. */
const FROM_NPM =
  /\b(?:npm\s+(?:i|install|add|exec)|npx|bunx|pnpm\s+(?:add|dlx)|yarn\s+(?:add|dlx))\b[^`\n]*?[ \t"']opencode-mcp\b/;

test('no text recommends the unrelated package of this name on npm', async () => {
  const files = await readTexts(['README.md', 'AGENTS.md', 'CHANGELOG.md', 'docs', 'scripts', 'src', 'systemd']);
  expect(files.size).toBeGreaterThan(200);
  expect([...files].filter(([, text]) => FROM_NPM.test(text)).map(([file]) => file)).toEqual([]);
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { readonly private?: boolean };
  expect(manifest.private).toBe(true);
});

const VERSION = /^\d+\.\d+\.\d+\n$/;

test('both commands run when installed from a git URL, a clone and a tarball, and uninstalling leaves no files', async () => {
  await using machine = await openFreshMachine();
  const { checkout, npm, run: command } = machine;
  const expectCommandsToRun = async (): Promise<void> => {
    expect(await command('opencode-mcp', '--version')).toMatch(VERSION);
    expect(await command('opencode-connected', '--version')).toMatch(VERSION);
    expect(await command('opencode-connected', '--help')).toMatch(/^opencode-connected \d+\.\d+\.\d+ starts opencode/);
  };
  // From a git URL: npm clones and builds it in its own folder.
  await npm('/', 'install', '--global', `git+file://${checkout}`);
  await expectCommandsToRun();
  expect(await machine.left()).toContain('lib/node_modules/opencode-mcp/scripts/install-node.sh');

  // The build above has installed the same packages as `npm ci` would.
  await symlink(join(root, 'node_modules'), join(checkout, 'node_modules'));
  // From the checkout: npm builds dist/ there and links the commands to it.
  await npm(checkout, 'install', '--global', '.');
  await expectCommandsToRun();
  expect(await machine.left()).toContain('lib/node_modules/opencode-mcp');

  // From a tarball, over the previous one.
  await npm(checkout, 'pack');
  const tarball = (await readdir(checkout)).find((name) => name.endsWith('.tgz')) ?? '';
  await npm(checkout, 'install', '--global', `./${tarball}`);
  await expectCommandsToRun();
  await npm('/', 'uninstall', '--global', 'opencode-mcp');
  expect(await machine.left()).toEqual([]);
});

describe('docs/docker', () => {
  const docker = join(root, 'docs/docker');
  test('the image copies from a checkout exactly the files that the build reads', async () => {
    const dockerfile = await readFile(join(docker, 'Dockerfile'), 'utf8');
    const ignored = (await readFile(join(docker, 'Dockerfile.dockerignore'), 'utf8')).split('\n');
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, words = '']) =>
      words.split(' '),
    );
    expect(copied.length).toBeGreaterThan(3);
    expect(ignored.filter((line) => line.startsWith('!')).toSorted()).toEqual(
      copied.map((path) => `!${path}`).toSorted(),
    );
    expect(ignored).toContain('*');
    expect(dockerfile).toMatch(/^USER \d+:\d+$/m);
    // The first stage of the image, with the packages that are installed here.
    await using stage = tempDir('image-build');
    await Promise.all(copied.map((path) => cp(join(root, path), join(stage.path, path), { recursive: true })));
    await symlink(join(root, 'node_modules'), join(stage.path, 'node_modules'));
    const [, command = ''] = /^RUN (node .*)$/m.exec(dockerfile) ?? [];
    await run('sh', ['-c', command], { cwd: stage.path });
    const runtimeFiles = /^COPY --from=build (.*) \S+$/m.exec(dockerfile)?.[1]?.split(' ') ?? [];
    const builtFiles = await readdir(join(stage.path, 'dist'));
    for (const path of runtimeFiles) {
      const pattern = new RegExp(
        `^${basename(path)
          .replaceAll('.', String.raw`\.`)
          .replace('*', '.*')}$`,
      );
      expect(
        builtFiles.some((file) => pattern.test(file)),
        path,
      ).toBe(true);
    }
  });

  test.skipIf(isMissing(LINTER))('a linter finds nothing in the Dockerfile', async () => {
    const { validate } = createRequire(import.meta.url)(LINTER) as {
      readonly validate: (text: string) => readonly { readonly message: string }[];
    };
    expect(validate('FROM node\nRUM ls').map(({ message }) => message)).toEqual(['Unknown instruction: RUM']);
    expect(validate(await readFile(join(docker, 'Dockerfile'), 'utf8'))).toEqual([]);
  });

  test('the compose file defines the container that docs/docker describes', async () => {
    const compose = await readFile(join(docker, 'compose.yaml'), 'utf8');
    for (const line of [
      'network_mode: host',
      'read_only: true',
      'cap_drop: [ALL]',
      'stdin_open: true',
      'target: /registry',
    ])
      expect(compose).toContain(line);
    expect(compose).toMatch(/user: \$\{REGISTRY_UID:\?.*\}:\$\{REGISTRY_GID:\?/);
  });
});

/** Reads all text files below these paths of the project, and skips missing paths. */
async function readTexts(paths: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const visit = async (path: string): Promise<void> => {
    const entries = await readdir(join(root, path), { withFileTypes: true }).catch(() => undefined);
    if (entries !== undefined) await Promise.all(entries.map((entry) => visit(join(path, entry.name))));
    else {
      const text = await readFile(join(root, path), 'utf8').catch(() => undefined);
      if (text !== undefined) found.set(path, text);
    }
  };
  await Promise.all(paths.map(visit));
  return found;
}
