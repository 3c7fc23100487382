import { chmod, chown, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { removalOrder, type RemovalOrder } from '../../../src/connected/survey/registry-survey.ts';
import { removeFromRegistry } from '../../../src/connected/survey/remove.ts';
import { takeSurvey } from '../../../src/connected/survey/take-survey.ts';
import { needRoot, run } from '../../discovery/as-root.ts';
import { openRemains, type Remains } from '../cleanup/remains.ts';

const never = new AbortController().signal;
const NOBODY = 65_534;

let remains: Remains;
beforeEach(async () => {
  remains = await openRemains();
});
afterEach(() => remains[Symbol.asyncDispose]());

/** The order to remove `name` as it is now. */
async function orderFor(name: string): Promise<RemovalOrder> {
  const { registrations, claims } = await takeSurvey(remains.registry, never);
  const found = registrations.find((one) => one.name === name);
  const { line: claim = '' } = claims.find((one) => one.name === name) ?? {};
  return { kind: 'registration', name, claim, ...(found && { version: found.version, port: found.registration.port }) };
}

const forget = (id: string): RemovalOrder => ({ kind: 'password', id, age: 'any' });

/** Why it was left, or `removed`. */
async function result(order: RemovalOrder): Promise<string> {
  const removal = await removeFromRegistry(remains.registry, order);
  return removal.removed ? 'removed' : removal.reason;
}

it('removes a dead one and nothing else', async () => {
  await remains.register('app', { claim: 'dead', password: true, id: 'id-app' });
  await remains.register('other', { claim: 'dead', id: 'id-other' });
  expect(await result(await orderFor('app'))).toBe('removed');
  expect(await result(forget('id-app'))).toBe('removed');
  expect(await remains.files()).toEqual(['.other.claim', 'other.json']);
});

it('leaves one that is held, and one on whose port something listens', async () => {
  const { pid = 0 } = await remains.process();
  await remains.register('held', { claim: { pid } });
  expect(await result(await orderFor('held'))).toBe('its claim is held');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  await remains.register('listens', { claim: 'dead', port });
  expect(await result(await orderFor('listens'))).toBe('something listens on its port again');
  await new Promise((resolve) => server.close(resolve));
  expect(await remains.files()).toEqual(['.held.claim', '.listens.claim', 'held.json', 'listens.json']);
});

it('moves nothing out of the way that is not what was surveyed', async () => {
  await remains.register('app', { claim: 'dead' });
  const order = await orderFor('app');
  await rm(join(remains.registry, 'app.json'));
  await mkdir(join(remains.registry, 'app.json', 'deep'), { recursive: true });
  expect(await result(order)).toBe('it has been written since');
  expect(await readdir(join(remains.registry, 'app.json'))).toEqual(['deep']);
});

it('leaves one that was written in place since', async () => {
  await remains.register('app', { claim: 'dead' });
  const order = await orderFor('app');
  await writeFile(join(remains.registry, 'app.json'), '{"id":"id-new","name":"app","port":1}\n');
  expect(await result(order)).toBe('it has been written since');
  expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
});

it('takes no link for the claim that was surveyed', async () => {
  await remains.register('app', { claim: 'dead' });
  const order = await orderFor('app');
  await rename(join(remains.registry, '.app.claim'), join(remains.path, 'claim'));
  await symlink(join(remains.path, 'claim'), join(remains.registry, '.app.claim'));
  expect(await result(order)).toBe('its claim has changed');
});

it("removes nothing that has become another user's, and no password by a link", async (context) => {
  needRoot(context);
  await remains.register('app', { claim: 'dead', id: 'id-app', password: true });
  const order = await orderFor('app');
  await chown(join(remains.registry, 'app.json'), NOBODY, NOBODY);
  expect(await result(order)).toBe('it has been written since');
  await remains.password('theirs');
  await chown(join(remains.registry, '.credentials', 'theirs'), NOBODY, NOBODY);
  expect(await result(forget('theirs'))).toBe('it is not a file of this user');
  await symlink('/etc/passwd', join(remains.registry, '.credentials', 'link'));
  expect(await result(forget('link'))).toBe('it is not a file of this user');
});

it('removes no password in a folder that a link leads to', async () => {
  const folder = join(remains.registry, '.credentials');
  await rename(folder, join(remains.path, 'outside'));
  await symlink(join(remains.path, 'outside'), folder);
  await writeFile(join(remains.path, 'outside', 'id-app'), 'a secret\n');
  expect(await result(forget('id-app'))).toBe('there is no folder of passwords');
  expect(await readdir(join(remains.path, 'outside'))).toEqual(['id-app']);
});

it('removes nothing from a directory in which others can write, or that is not there', async () => {
  await remains.register('app', { claim: 'dead', id: 'id-app', password: true });
  const orders = [await orderFor('app'), forget('id-app')];
  await chmod(remains.registry, 0o770);
  for (const order of orders) expect(await result(order)).toMatch(/^others can write in the registry directory/);
  expect(await remains.files()).toEqual(['.app.claim', '.credentials/id-app', 'app.json']);
  await rm(remains.registry, { recursive: true });
  expect(await result(forget('id-app'))).toBe('there is no registry directory');
});

it.each(['../app', '.app', 'a/b', '', 'a\nb'])('removes nothing under the name %j', async (name) => {
  expect(await result({ kind: 'registration', name, claim: '' })).toBe('its name is no file name');
});

it.each(['../app', '', 'a/b', '.', 'a b'])('takes no order to forget the id %j', (id) => {
  expect(removalOrder.safeParse(forget(id)).success).toBe(false);
});

it('goes on over the lock of a program that died', async () => {
  await remains.register('app', { claim: 'dead' });
  await writeFile(join(remains.registry, '.app.lock'), '');
  expect(await result(await orderFor('app'))).toBe('removed');
  expect(await remains.files()).toEqual([]);
});

it('says that a read-only directory cannot be written', async (context) => {
  needRoot(context);
  await remains.register('app', { claim: 'dead', id: 'id-app' });
  const order = await orderFor('app');
  run('mount', '--bind', remains.registry, remains.registry);
  try {
    run('mount', '-o', 'remount,bind,ro', remains.registry);
    expect(await result(order)).toMatch(/^the registry directory cannot be written: EROFS/);
  } finally {
    run('umount', '-l', remains.registry);
  }
});
