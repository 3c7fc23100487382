import type { Client, Place, Words } from './clients.ts';
import { difference } from './difference.ts';
import { snippet } from './edit.ts';
import type { Outcome, Plan } from './plan.ts';

/** The planned change of one client's file, for a person. */
export function planLines({ client, file, before, edit }: Plan, place: Place, isRemoval: boolean): readonly string[] {
  const head = `${client.title}: ${shortPath(file, place)}`;
  if (edit.kind === 'failed') return [head, `  not changed: ${edit.reason}`];
  if (edit.kind === 'none') return [head, isRemoval ? '  has no opencode-mcp' : '  already has it'];
  const lines =
    before === undefined
      ? [
          'new file:',
          ...edit.text
            .trimEnd()
            .split('\n')
            .map((line) => `+ ${line}`),
        ]
      : difference(before, edit.text);
  return [head, ...lines.map((line) => `  ${line}`)];
}

/** The result of writing the change, for a person. */
export function resultLine({ client }: Plan, outcome: Outcome | undefined, place: Place, isRemoval: boolean): string {
  if (outcome?.reason !== undefined) return `${client.title}: not written: ${outcome.reason}`;
  const copy = outcome?.backup === undefined ? '' : `\n  copy of the old file: ${shortPath(outcome.backup, place)}`;
  return `${client.title}: ${isRemoval ? 'removed' : 'written'}${isRemoval ? '' : `; ${client.next}`}${copy}`;
}

/** The change and its result, as JSON. */
export function planRow({ client, file, edit }: Plan, done: ReadonlyMap<Client, Outcome>): object {
  const outcome = done.get(client);
  const reason = edit.kind === 'failed' ? edit.reason : outcome?.reason;
  return {
    client: client.name,
    file,
    change: edit.kind,
    written: outcome !== undefined && reason === undefined,
    ...(outcome?.backup !== undefined && { backup: outcome.backup }),
    ...(reason !== undefined && { reason }),
  };
}

/** What to add by hand, and to which file. */
export function byHand(client: Client, place: Place, words: Words): string {
  return `${client.title}, in ${shortPath(client.files(place).at(-1) ?? '', place)}:\n\n${snippet(client, words)}\n`;
}

function shortPath(path: string, { home }: Place): string {
  return path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
}
