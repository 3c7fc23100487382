import { expect, test } from 'vitest';

import { drawReport } from '../../src/commands/terminal/doctor-report.ts';
import { widthOf } from '../../src/commands/terminal/table.ts';
import { instanceChecks } from '../../src/doctor/instances.ts';
import { quoted } from '../../src/base/plain-text.ts';
import { adviceIn, type Check, check, reportOf, type Section } from '../../src/doctor/report.ts';
import { World } from '../fleet/world.ts';
import { until } from '../rig/wait.ts';

const PLACES = { registryDir: { path: '/reg', explicit: true }, stateDir: '/state', configFile: '/config.json' };

function endpoints(world: World): readonly (readonly [string, string | undefined, string | undefined])[] {
  const checks = instanceChecks(world.fleet.snapshot(), PLACES, world.clock.now());
  return checks.flatMap(({ subject, details = [] }) =>
    details.map(({ verdict, endpoint }) => [subject, endpoint?.identity, verdict] as const),
  );
}

test('endpoints of one process are proven the same, those of two similar processes are suspected', async () => {
  await using world = new World();
  const [desk, twin, copy] = [await world.fake(), await world.fake(), await world.fake()];
  const tunnel = await world.tunnelTo(desk);
  world.register('desk', desk, { claims: { id: 'same', name: 'desk' } });
  world.register('tunnel', tunnel, { claims: { id: 'same', name: 'desk' }, route: 'relay' });
  world.register('twin', twin, { claims: { id: 'alike', name: 'twin' } });
  world.register('copy', copy, { claims: { id: 'alike', name: 'copy' } });
  await world.start();
  await until('the two endpoints to be one', () => world.fleet.snapshot().instances.length === 3);
  expect(endpoints(world)).toEqual([
    ['copy', 'suspected', 'warn'],
    ['desk', 'proven', 'ok'],
    ['desk', 'proven', 'ok'],
    ['twin', 'suspected', 'warn'],
  ]);
});

const LONG: Check = check('warn', 'a subject', 'many words '.repeat(20).trim(), {
  advice: { text: 'words of advice '.repeat(9).trim(), command: `rm /${'a-long-path/'.repeat(9)}` },
  details: Array.from({ length: 14 }, (_, index) => check('-', `detail ${index}`, 'left out, since it is a phone')),
});
const SECTIONS: readonly Section[] = [
  {
    id: 'sources',
    title: 'Sources',
    checks: [check('-', 'tailscale', `unavailable: ${'no such socket '.repeat(20)}`), LONG],
  },
];
const plain = (text: string): string => text;

test.each([60, 80, 200])('the report wraps at %i columns, except commands to copy', (width) => {
  const lines = drawReport(reportOf('1', SECTIONS), plain, width).trimEnd().split('\n');
  for (const line of lines) if (!line.trim().startsWith('rm ')) expect(widthOf(line), line).toBeLessThanOrEqual(width);
  expect(lines.filter((line) => line.includes('a-long-path'))).toEqual([`       ${LONG.advice?.command}`]);
  // One line for an unavailable source, and only some of many details.
  expect(lines.filter((line) => line.includes('no such socket'))).toHaveLength(1);
  expect(lines.filter((line) => line.includes('detail '))).toHaveLength(12);
  expect(lines).toContain('      and 2 more; --json has all');
});

test('the report shows the first twenty things to do', () => {
  const checks = Array.from({ length: 22 }, (_, index) =>
    check('warn', `${index}`, '', { advice: { text: `do ${index}` } }),
  );
  const drawn = drawReport(reportOf('1', [{ id: 'x', title: 'X', checks }]), plain, 80);
  expect(drawn).toMatch(/  20\. 19: do 19\n  and 2 more; --json has all\n$/);
});

test('in a pipe, the report is not wrapped and only verdicts are coloured', () => {
  const colour = (text: string, name: string | undefined): string => `<${name}>${text}</>`;
  const drawn = drawReport(reportOf('1', SECTIONS), colour, undefined);
  expect(drawn).toContain(`  <yellow>warn</>    a subject: ${LONG.text}\n`);
  expect(drawn).toContain('  <dim>-</>       tailscale: unavailable: no such socket');
  expect(drawReport(reportOf('1', [{ id: 'x', title: 'X', checks: [check('ok', 'y', 'z')] }]), plain, undefined)).toBe(
    'X\n  ok      y: z\n\nNothing to mend.\n',
  );
});

test('each piece of advice appears once, with its worst verdict; sections that others depend on come first', () => {
  const advice = { text: 'close it', command: 'chmod go-w /x' };
  const { todo, verdict } = reportOf('1', [
    {
      id: 'instances',
      title: '',
      checks: [check('warn', 'one', '', { advice }), check('broken', 'two', '', { advice })],
    },
    { id: 'state', title: '', checks: [check('broken', 'state', '', { advice: { text: 'make room' } })] },
    { id: 'clients', title: '', checks: [check('ok', 'three', '', { advice: { text: 'nothing' } })] },
  ]);
  expect(verdict).toBe('broken');
  expect(todo).toEqual([
    { verdict: 'broken', subject: 'state', text: 'make room' },
    { verdict: 'broken', subject: 'two', ...advice },
  ]);
});

test.each([
  [
    '"/r" can be written by others (mode 0777); run: chmod go-w /r',
    '"/r" can be written by others (mode 0777)',
    'chmod go-w /r',
  ],
  ['tailscaled is logged out; run tailscale up', 'log this machine in, as root or its operator', 'tailscale up'],
  ['it failed; try another port', 'try another port', undefined],
  [
    'other users have access; run: chmod 600 /a/long/pa…',
    'other users have access; run: chmod 600 /a/long/pa…',
    undefined,
  ],
  [
    '"/r/a; run: evil #.json" can be written by others (mode 0666); run: chmod go-w \'/r/a; run: evil #.json\'',
    '"/r/a; run: evil #.json" can be written by others (mode 0666)',
    "chmod go-w '/r/a; run: evil #.json'",
  ],
  [`its node service says ${quoted('no; run: evil\\', 40)}, ${quoted('; run: evil', 40)}; wait`, 'wait', undefined],
  ['it is "left open; run: evil', undefined, undefined],
])('%s: the advice is the end of the reason, but never part of a command or quotation', (reason, text, command) => {
  expect(adviceIn(reason)).toEqual(text && { text, ...(command !== undefined && { command }) });
});
