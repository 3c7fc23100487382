import { formatAge, quoteName } from '../../operations/answer.ts';
import type { LocalInstance, RelayRegistration, RelayReport, StatusReport, Wrapper } from './report.ts';
import { cell, fitted, fittedPath, WIDTH, wrapped } from './table.ts';

const STATE_WIDTH = 11;
const PORT_WIDTH = 5;
const NAME_WIDTH = 24;
const VERSION_WIDTH = 8;
/** Beyond this, `--json` is easier to read. */
const MAX_ROWS = 200;
const MAX_NOTES = 20;

/** The report as text. Lines have at most 80 characters, except commands and single words. */
export function renderStatus(report: StatusReport, nowMs: number): string {
  const sections = [
    hereSection(report.here),
    wrapperSection(report.wrappers, nowMs),
    report.relay === undefined ? ['No relay is set (RELAY_SSH_CMD).'] : relaySection(report.relay),
    lanSection(report.wrappers),
    attachSection(report.here.instances),
    leftoverSection(report.leftovers),
  ];
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`;
}

function hereSection({ directory, problem, instances, notes }: StatusReport['here']): readonly string[] {
  if (problem !== undefined) return [...wrapped(`This machine: ${problem}`, '')];
  if (instances.length === 0) {
    return [...wrapped(`This machine: nothing is registered in ${directory}.`, ''), ...noteLines(notes)];
  }
  return [
    `This machine, ${fittedPath(directory, WIDTH - 15)}:`,
    row('STATE', 'PORT', 'NAME', 'DIRECTORY', 'VERSION'),
    ...bounded(instances, instanceLines),
    // The instances already show why they are not trusted.
    ...noteLines(notes.filter(({ reason }) => !isAny(instances, 'untrusted') || !reason.startsWith('untrusted: '))),
  ];
}

function isAny(instances: readonly LocalInstance[], state: LocalInstance['answer']['state']): boolean {
  return instances.some(({ answer }) => answer.state === state);
}

function instanceLines({
  state,
  reason,
  answer,
  port,
  name,
  host,
  localPort,
  directory,
}: LocalInstance): readonly string[] {
  const shown = answer.state === 'healthy' || answer.state === 'other' ? answer.directory : (directory ?? '');
  const version = 'version' in answer ? answer.version : '';
  const lines = [row(state, String(port), name, shown, version)];
  if (localPort !== undefined && localPort !== port)
    lines.push(`  on ${host === undefined ? 'another machine' : quoteName(host)}, port ${localPort} there`);
  return reason === undefined ? lines : [...lines, ...wrapped(reason, '  ')];
}

function wrapperSection(wrappers: readonly Wrapper[], nowMs: number): readonly string[] {
  const running = wrappers.filter((one) => one.running);
  if (running.length === 0) return [];
  return ['opencode-connected running here:', ...bounded(running, (one) => wrapperLines(one, nowMs))];
}

function wrapperLines(
  { name, pid, port, tunnel, startedAt, logFile, service }: Wrapper,
  nowMs: number,
): readonly string[] {
  const age = formatAge(nowMs - Date.parse(startedAt));
  const what = service === undefined ? `port ${port}` : `the service of OpenCode 2 at ${service.url}`;
  return [
    ...wrapped(`${quoteName(name)}: pid ${pid}, ${what}, for ${age}; ${tunnelText(tunnel, nowMs)}`, '  '),
    `    log: ${logFile}`,
  ];
}

/** What another machine needs. One rule is enough, since all instances of this machine have one password. */
function lanSection(wrappers: readonly Wrapper[]): readonly string[] {
  const shared = wrappers.flatMap(({ running, lan, name }) => (running && lan ? [{ name, ...lan }] : []));
  const [first] = shared;
  if (first === undefined) return [];
  const rule = `{ "source": "mdns", "host": ${JSON.stringify(first.host)}, "password": { "file": "~/.secrets/${fileNameOf(first.host)}" } }`;
  return [
    'On the LAN, over plain HTTP: the password and all traffic are unencrypted.',
    ...bounded(shared, ({ name, port }) => [`  ${quoteName(name)}: port ${port}`]),
    '  In ~/.config/opencode-mcp/config.json of another machine, under "credentials":',
    `    ${rule}`,
    ...wrapped(`and in that file (chmod 600), the output of this command here: cat ${first.passwordFile}`, '  '),
  ];
}

function fileNameOf(host: string): string {
  return host.replace(/[^\w.-]+/g, '-');
}

function tunnelText(tunnel: Wrapper['tunnel'], nowMs: number): string {
  if (tunnel === undefined) return 'without a relay';
  if (tunnel.state === 'connected')
    return `relay: connected as ${quoteName(tunnel.name ?? '?')}, port ${tunnel.port ?? '?'} there`;
  const reason = tunnel.reason === undefined ? '' : ` (${tunnel.reason})`;
  const nextMs = tunnel.nextAttemptAt === undefined ? NaN : Date.parse(tunnel.nextAttemptAt) - nowMs;
  const next = Number.isNaN(nextMs) ? '' : `, next attempt in ${formatAge(nextMs)}`;
  return `relay: ${tunnel.state === 'waiting' ? 'not connected' : tunnel.state}${reason}${next}`;
}

function relaySection({ directory, host, problem, registrations, notes }: RelayReport): readonly string[] {
  if (problem !== undefined) return wrapped(`Relay: cannot be read: ${problem}`, '');
  const where = `${host === undefined ? 'unknown host' : quoteName(host)}, ${quoteName(directory)}`;
  if (registrations.length === 0)
    return [...wrapped(`Relay (${where}): nothing is registered.`, ''), ...noteLines(notes)];
  return [
    `Relay (${fittedPath(where, WIDTH - 9)}):`,
    row('TUNNEL', 'PORT', 'NAME', 'DIRECTORY'),
    ...bounded(registrations, relayLines),
    ...noteLines(notes),
  ];
}

const LISTENS: Readonly<Record<RelayRegistration['listens'], string>> = {
  yes: 'listens',
  no: 'silent',
  unknown: 'unknown',
};

function relayLines(registration: RelayRegistration): readonly string[] {
  const { listens, port, name, directory = '', host, localPort } = registration;
  const there = `${host === undefined ? 'an unknown host' : quoteName(host)}${localPort === undefined ? '' : ` port ${localPort}`}`;
  const facts = [
    registration.fromHere ? 'this machine' : `from ${there}`,
    claimText(registration),
    ...(registration.owner === 'mine' ? [] : [`of uid ${registration.ownerUid ?? 'unknown'}`]),
  ];
  return [row(LISTENS[listens], String(port), name, directory), ...wrapped(facts.join(', '), '  ')];
}

function claimText({ claim }: RelayRegistration): string {
  if (claim === 'alive') return 'held';
  if (claim === 'dead') return 'its connection is gone';
  if (claim === 'elsewhere') return "held on another machine that shares the relay's directory";
  return claim === 'none' ? 'held by nobody' : 'holder unknown';
}

function attachSection(instances: readonly LocalInstance[]): readonly string[] {
  const commands = instances.flatMap(({ name, attach }) =>
    attach === undefined ? [] : [`  # ${name}`, `  ${attach}`],
  );
  return commands.length === 0
    ? []
    : ['Open a terminal on one: opencode-mcp attach NAME, or by hand:', ...commands.slice(0, 2 * MAX_ROWS)];
}

function leftoverSection(leftovers: StatusReport['leftovers']): readonly string[] {
  if (leftovers.length === 0) return [];
  const count = leftovers.length === 1 ? '1 leftover' : `${leftovers.length} leftovers`;
  const lines = leftovers
    .slice(0, MAX_NOTES)
    .flatMap(({ where, what, subject, reason }) => [
      fitted(`  ${where === 'relay' ? 'relay: ' : ''}${what} ${subject}`, 4 * WIDTH),
      ...wrapped(reason, '    '),
    ]);
  return [
    `${count} of dead instances; opencode-connected cleanup removes them:`,
    ...lines,
    ...more(leftovers.length, MAX_NOTES),
  ];
}

function noteLines(notes: StatusReport['here']['notes']): readonly string[] {
  const lines = notes
    .slice(0, MAX_NOTES)
    .flatMap(({ subject, reason }) => wrapped(`note: ${subject}: ${reason}`, '  '));
  return [...lines, ...more(notes.length, MAX_NOTES)];
}

function bounded<T>(items: readonly T[], render: (item: T) => readonly string[]): readonly string[] {
  return [...items.slice(0, MAX_ROWS).flatMap(render), ...more(items.length, MAX_ROWS)];
}

function more(count: number, shown: number): readonly string[] {
  return count > shown ? [`  and ${count - shown} more; --json shows all`] : [];
}

/** Without `version` there is no such column. */
function row(state: string, port: string, name: string, path: string, version?: string): string {
  const cells = [cell(state, STATE_WIDTH), cell(port, PORT_WIDTH), cell(name, NAME_WIDTH)];
  if (version !== undefined) cells.push(cell(version, VERSION_WIDTH));
  const head = `${cells.join(' ')} `;
  return (head + fittedPath(path, WIDTH - Array.from(head).length)).trimEnd();
}
