import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { reasonOf } from '../base/errors.ts';
import type { Client, Place } from './clients.ts';
import { findOnPath } from './command.ts';
import { readConfigText, rewriteConfig } from './config-file.ts';
import { editConfig, type Edit, type EditRequest } from './edit.ts';

/** The planned change of one client's file. */
export interface Plan {
  readonly client: Client;
  readonly file: string;
  /** The text of the whole file; undefined if there is none. */
  readonly before: string | undefined;
  readonly edit: Edit | { readonly kind: 'failed'; readonly reason: string };
}

/** The result of writing a change. */
export interface Outcome {
  /** Path of the copy, if there was a file. */
  readonly backup?: string | undefined;
  readonly reason?: string;
}

/** Whether the client's files, folder or program are on this machine. */
export function isHere(client: Client, place: Place): boolean {
  const files = client.files(place);
  const folder = client.folder?.(place) ?? dirname(files[0]);
  return [...files, folder].some((path) => existsSync(path)) || client.programs.some((name) => findOnPath(place, name));
}

/** Plans to edit the file that already has the entry, otherwise the first that exists. */
export async function planFor(client: Client, place: Place, wanted: EditRequest): Promise<Plan> {
  const files = client.files(place);
  let first: Plan | undefined;
  for (const file of files) {
    const plan = await planForFile(client, file, wanted);
    if (plan === undefined) continue;
    if (plan.edit.kind !== 'add' && !(wanted.kind === 'remove' && plan.edit.kind === 'none')) return plan;
    first ??= plan;
  }
  if (first !== undefined) return first;
  const file = files.at(-1) ?? files[0];
  return { client, file, before: undefined, edit: editConfig(client, '', wanted) };
}

async function planForFile(client: Client, file: string, wanted: EditRequest): Promise<Plan | undefined> {
  try {
    const before = await readConfigText(file);
    return before === undefined ? undefined : { client, file, before, edit: editConfig(client, before, wanted) };
  } catch (error) {
    return { client, file, before: undefined, edit: { kind: 'failed', reason: reasonOf(error) } };
  }
}

export function isChange(edit: Plan['edit']): edit is Edit {
  return edit.kind !== 'failed' && edit.kind !== 'none';
}

/** Reads the file again, since it may have changed since it was shown. */
export async function carryOut({ client, file }: Plan, wanted: EditRequest): Promise<Outcome> {
  try {
    const backup = await rewriteConfig(file, {
      pause,
      locks: client.locks === true,
      change: (text) => {
        const edit = editConfig(client, text ?? '', wanted);
        return edit.kind === 'none' ? undefined : edit.text;
      },
    });
    return { backup };
  } catch (error) {
    return { reason: reasonOf(error) };
  }
}
