import { chmod, chown, mkdir, readdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { beforeEach, expect, it, onTestFinished } from 'vitest';

import { removalOrder, type RemovalOrder } from '../../../src/connected/survey/registry-survey.ts';
import { removeFromRegistry } from '../../../src/connected/survey/remove.ts';
import { takeSurvey } from '../../../src/connected/survey/take-survey.ts';
import { needRoot, run } from '../../discovery/as-root.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { HOUR_MS, openRemains, type Remains } from '../cleanup/remains.ts';

const never = new AbortController().signal;
const NOBODY = 65_534;

let remains: Remains;
beforeEach(async () => {
  remains = await openRemains();
});

/** The order to remove the registration `name` in its current state. */
async function orderFor(name: string): Promise<RemovalOrder> {
  const { registrations, claims } = await takeSurvey(remains.registry, never);
  const found = registrations.find((one) => one.name === name);
  const { line: claim = '' } = claims.find((one) => one.name === name) ?? {};
  return { kind: 'registration', name, claim, ...(found && { version: found.version, port: found.registration.port }) };
}

const passwordOrder = (id: string): RemovalOrder => ({ kind: 'password', id, age: 'any' });

/** Executes the order; returns `removed`, or the reason why the file was left. */
async function execute(order: RemovalOrder): Promise<string> {
  const removal = await removeFromRegistry(remains.registry, order);
  return removal.removed ? 'removed' : removal.reason;
}

it('removes a dead registration and nothing else', async () => {
  await remains.register('app', { claim: 'dead', password: true, id: 'id-app' });
  await remains.register('other', { claim: 'dead', id: 'id-other' });
  expect(await execute(await orderFor('app'))).toBe('removed');
  expect(await execute(passwordOrder('id-app'))).toBe('removed');
  expect(await remains.files()).toEqual(['.other.claim', 'other.json']);
});

it('leaves a registration whose claim is held', async () => {
  const { pid } = await remains.process();
  await remains.register('held', { claim: { pid } });
  expect(await execute(await orderFor('held'))).toBe('its claim is held');
  expect(await remains.files()).toEqual(['.held.claim', 'held.json']);
});

const file = (): string => join(remains.registry, 'app.json');
const claim = (name = 'app'): string => join(remains.registry, `.${name}.claim`);
const outside = (): string => join(remains.path, 'outside');

it.each<readonly [string, string, (port: number) => Promise<unknown>]>([
  ['is written', 'it has been written since', () => writeFile(file(), '{"id":"id-new","name":"app","port":1}\n')],
  [
    'is replaced',
    'it has been written since',
    async () => {
      await writeFile(`${file()}.new`, '{"id":"id-new","name":"app","port":1}\n');
      await rename(`${file()}.new`, file());
    },
  ],
  [
    'becomes a directory',
    'it has been written since',
    () => rm(file()).then(() => mkdir(join(file(), 'deep'), { recursive: true })),
  ],
  [
    'becomes a link',
    'it has been written since',
    () => rename(file(), outside()).then(() => symlink(outside(), file())),
  ],
  [
    'is claimed by another instance',
    'its claim has changed',
    () => writeFile(claim(), `id-new ${process.pid} 1 ${hostname()}\n`),
  ],
  [
    'has a link to its claim',
    'its claim has changed',
    () => rename(claim(), outside()).then(() => symlink(outside(), claim())),
  ],
  [
    'has a port on which something listens',
    'something listens on its port again',
    async (port) => {
      const { close } = await listenHttp(() => {}, port);
      onTestFinished(close);
    },
  ],
])('leaves a registration that %s after the survey', async (_, reason, change) => {
  const { port } = await remains.register('app', { claim: 'dead' });
  const order = await orderFor('app');
  await change(port);
  const before = await remains.files();
  expect(await execute(order)).toBe(reason);
  expect(await remains.files()).toEqual(before);
});

it('leaves a registration without a claim that is claimed after the survey', async () => {
  await remains.register('app');
  const order = await orderFor('app');
  await remains.claim('app', 'id-new');
  expect(await execute(order)).toBe('it has been claimed since');
  expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
});

it.each<readonly [string, string, (path: string) => Promise<unknown>]>([
  [
    'a registration has its id',
    'there is a registration with its id',
    () => writeFile(join(remains.registry, 'new.json'), '{ "id" : "id-app" , "port": 1}'),
  ],
  [
    'a starting instance has claimed its id',
    'an instance with its id is claimed',
    () => remains.claim('new', 'id-app', process.pid),
  ],
  ['it was written again', 'it is younger than an hour', (path) => utimes(path, new Date(), new Date())],
])('leaves an old password if %s', async (_, reason, change) => {
  const path = await remains.password('id-app', { ageMs: 2 * HOUR_MS });
  await change(path);
  expect(await execute({ kind: 'password', id: 'id-app', age: 'old' })).toBe(reason);
  expect(await remains.files()).toContain('.credentials/id-app');
});

it("leaves another user's files, and a link in place of a password", async (context) => {
  needRoot(context);
  await remains.register('app', { claim: 'dead', id: 'id-app', password: true });
  const order = await orderFor('app');
  await chown(join(remains.registry, 'app.json'), NOBODY, NOBODY);
  expect(await execute(order)).toBe('it has been written since');
  await remains.password('foreign');
  await chown(join(remains.registry, '.credentials', 'foreign'), NOBODY, NOBODY);
  expect(await execute(passwordOrder('foreign'))).toBe('it is not a file of this user');
  await symlink('/etc/passwd', join(remains.registry, '.credentials', 'link'));
  expect(await execute(passwordOrder('link'))).toBe('it is not a file of this user');
});

it('leaves a password if its folder is a symbolic link', async () => {
  const folder = join(remains.registry, '.credentials');
  await rename(folder, join(remains.path, 'outside'));
  await symlink(join(remains.path, 'outside'), folder);
  await writeFile(join(remains.path, 'outside', 'id-app'), 'a secret\n');
  expect(await execute(passwordOrder('id-app'))).toBe('the password folder is missing');
  expect(await readdir(join(remains.path, 'outside'))).toEqual(['id-app']);
});

it('removes nothing if others can write to the directory, or it is missing', async () => {
  await remains.register('app', { claim: 'dead', id: 'id-app', password: true });
  const orders = [await orderFor('app'), passwordOrder('id-app')];
  await chmod(remains.registry, 0o770);
  for (const order of orders) expect(await execute(order)).toMatch(/^others can write in the registry directory/);
  expect(await remains.files()).toEqual(['.app.claim', '.credentials/id-app', 'app.json']);
  await rm(remains.registry, { recursive: true });
  expect(await execute(passwordOrder('id-app'))).toBe('there is no registry directory');
});

it.each(['../app', '.app', 'a/b', '', 'a\nb'])('refuses the name %j', async (name) => {
  expect(await execute({ kind: 'registration', name, claim: '' })).toBe('its name is not a valid file name');
});

it.each(['../app', '', 'a/b', '.', 'a b'])('refuses the id %j', (id) => {
  expect(removalOrder.safeParse(passwordOrder(id)).success).toBe(false);
});

it('removes a registration with the lock of a dead program', async () => {
  await remains.register('app', { claim: 'dead' });
  await writeFile(join(remains.registry, '.app.lock'), '');
  expect(await execute(await orderFor('app'))).toBe('removed');
  expect(await remains.files()).toEqual([]);
});

it('reports a read-only directory', async (context) => {
  needRoot(context);
  await remains.register('app', { claim: 'dead', id: 'id-app' });
  const order = await orderFor('app');
  run('mount', '--bind', remains.registry, remains.registry);
  try {
    run('mount', '-o', 'remount,bind,ro', remains.registry);
    expect(await execute(order)).toMatch(/^the registry directory cannot be written: EROFS/);
  } finally {
    run('umount', '-l', remains.registry);
  }
});
