import { jsonOf } from '../base/errors.ts';
import { shellWord } from '../base/plain-text.ts';
import { networkInterfaces } from 'node:os';

import type { Settings } from '../config/settings.ts';
import { MDNS_SOURCE } from '../discovery/mdns/mdns.ts';
import { linksOf } from '../mdns/links.ts';
import type { Snapshot, SourceState } from '../model/instance.ts';
import { formatAge } from '../operations/answer.ts';
import { adviceIn, type Advice, type Check, check } from './report.ts';

/** The source of the fleet's notes about the merged list. */
const MERGED_LIST = 'directory';

/** Each source: its last scan, what it saw, and what it left out and why. */
export function sourceChecks(snapshot: Snapshot, nowMs: number): readonly Check[] {
  const about = (name: string): readonly Check[] =>
    snapshot.notes.filter(({ source }) => source === name).map(({ subject, reason }) => noteCheck(subject, reason));
  const merged = about(MERGED_LIST);
  return [
    ...snapshot.sources.map((source) => sourceCheck(source, about(source.name), nowMs)),
    ...(merged.length === 0
      ? []
      : [check('ok', 'the list', 'some entries contradict each other, or are too many', { details: merged })]),
  ];
}

function sourceCheck(source: SourceState, notes: readonly Check[], nowMs: number): Check {
  const { name, status, reason = '', candidates, dropped, scannedAtMs = nowMs } = source;
  const details = [...notes, ...dropped.map((one) => check('-', one.subject, one.reason))];
  const when = `scanned ${formatAge(nowMs - scannedAtMs)} ago`;
  switch (status) {
    case 'ok': {
      const left = dropped.length === 0 ? '' : `, ${dropped.length} left out`;
      return check('ok', name, `${candidates} seen${left}, ${when}`, { details });
    }
    case 'unavailable':
      // No advice: it would be to install something that this person does not use.
      return check('-', name, `unavailable: ${reason.split('; ', 1)[0]}`);
    case 'pending':
      return check('warn', name, 'pending: its first scan has not ended');
    case 'failed':
      return check('broken', name, `failed: ${reason}; ${when}`, { details, advice: adviceIn(reason) });
  }
}

/** Notes about registrations that are listed anyway. */
const REMARK = /^\w+: (?:left out|cut to|looks like)|; left out$/;

function noteCheck(subject: string, reason: string): Check {
  const isRegistration = /^"?\/.*\.json"?$/.test(subject);
  if (isRegistration && REMARK.test(reason)) return check('warn', subject, reason);
  const own = adviceIn(reason);
  const isUseless = isRegistration && own?.command === undefined && !reason.startsWith('untrusted');
  const advice = isUseless ? replaceAdvice(unquoted(subject), reason) : own;
  return check('warn', subject, reason, { advice });
}

function replaceAdvice(path: string, reason: string): Advice {
  const file = shellWord(path);
  if (reason.startsWith('is a folder')) return { text: 'move it away', command: `mv ${file} ${file}.old` };
  return { text: 'write it again, or remove it', command: `rm ${file}` };
}

/** Undoes `quoteName`. */
function unquoted(name: string): string {
  const read = name.startsWith('"') ? jsonOf(name) : name;
  return typeof read === 'string' ? read : name;
}

/** Whether this machine can use mDNS. */
export function multicastCheck(
  { sources, mdnsInterfaces }: Pick<Settings, 'sources' | 'mdnsInterfaces'>,
  snapshot: Snapshot,
): Check {
  const subject = 'UDP 5353';
  if (mdnsInterfaces !== 'all' && mdnsInterfaces.length === 0)
    return check('-', subject, 'switched off (OPENCODE_MDNS_INTERFACES=none); unset that to find instances on the LAN');
  const source = snapshot.sources.find(({ name }) => name === MDNS_SOURCE);
  if (source === undefined)
    return check('-', subject, `not used (TRANSPORT=${sources === 'all' ? '' : sources.join(',')})`);
  const links = linksOf(networkInterfaces(), mdnsInterfaces);
  const shown = links.map(({ interfaceName, address }) => `${interfaceName} ${address.split('%', 1)[0]}`).join(', ');
  if (source.status === 'ok') return check('ok', subject, `sends and listens on ${shown}`);
  const { reason = source.status } = source;
  if (links.length > 0 || mdnsInterfaces !== 'all')
    return check('warn', subject, reason, {
      advice: {
        text:
          links.length > 0
            ? 'allow this program to use UDP port 5353 on these interfaces, or set OPENCODE_MDNS_INTERFACES=none'
            : 'set OPENCODE_MDNS_INTERFACES to interfaces that have an address, or unset it',
      },
    });
  return check('-', subject, reason);
}
