import { describe, expect, it } from 'vitest';

import { isOwnNetwork } from '../../src/config/file/own-network.ts';
import type { ChannelSettings } from '../../src/config/notify.ts';
import { CONFIG_PATH, HOME, load, problemsOf } from './load-case.ts';

const NTFY = { type: 'ntfy', url: 'https://ntfy.sh', topic: 'ada-agents' };

function channels(...entries: readonly object[]): readonly ChannelSettings[] {
  return load({ config: { notify: { channels: entries } } }).settings.notify?.channels ?? [];
}

function problemsOfChannel(channel: unknown): readonly string[] {
  return problemsOf({ config: { notify: { channels: [channel] } } }).map((line) =>
    line.replace(`${CONFIG_PATH}: notify.channels[0]`, ''),
  );
}

describe('notify', () => {
  it('has defaults for all but the channels', () => {
    expect(load({ config: { notify: { channels: [] } } }).settings.notify).toEqual({
      channels: [],
      minTurnSeconds: 30,
      repeatAfterMinutes: 10,
      stalledAfterMinutes: 10,
    });
  });

  it('gives a channel default rules: a name, every event, every instance, no hours', () => {
    expect(channels({ type: 'desktop' }, { type: 'desktop' }, { type: 'command', command: ['tell'] })).toMatchObject([
      { name: 'desktop' },
      { name: 'desktop-2' },
      { name: 'command', argv: ['tell'] },
    ]);
    expect(channels({ type: 'desktop' })).toEqual([
      {
        type: 'desktop',
        name: 'desktop',
        text: 'full',
        events: ['permission', 'question', 'unanswered', 'done', 'failed', 'stalled'],
        instances: [],
      },
    ]);
  });

  it('reads the rules of a channel', () => {
    const rules = { name: 'phone', text: 'title', events: ['failed'], instances: ['desk-*'], hours: '22:30-06:00' };
    expect(channels({ ...NTFY, ...rules })).toMatchObject([{ ...rules, hours: { from: 1_350, to: 360 } }]);
  });

  it("resolves secrets, and paths against the config file's folder", () => {
    const ntfy = { ...NTFY, token: { env: 'NTFY_TOKEN' } };
    const config = { notify: { channels: [ntfy, { type: 'command', command: ['./tell', '~'] }] } };
    const { settings } = load({ config, env: { NTFY_TOKEN: 'tk_1' } });
    expect(settings.notify?.channels).toMatchObject([
      { token: { kind: 'value', value: 'tk_1' } },
      { argv: [`${HOME}/.config/opencode-mcp/tell`, '~'] },
    ]);
    // A missing secret is an error only when its channel is used.
    expect(load({ config }).settings.notify?.channels).toMatchObject([
      { token: { kind: 'unset', variable: 'NTFY_TOKEN' } },
      {},
    ]);
  });

  it('keeps the query and the trailing slash of a webhook URL', () => {
    expect(channels({ type: 'webhook', url: 'https://hooks.example.com/in/?key=1' })).toMatchObject([
      { url: 'https://hooks.example.com/in/?key=1' },
    ]);
  });
});

describe('the default text of a channel is none if a third party would read it', () => {
  it.each([
    [NTFY, 'none'],
    [{ ...NTFY, url: 'http://192.168.1.2' }, 'none'],
    [{ ...NTFY, text: 'full' }, 'full'],
    [{ ...NTFY, url: 'http://desk.tail1234.ts.net:2586' }, 'full'],
    [{ type: 'webhook', url: 'https://hooks.example.com/' }, 'none'],
    [{ type: 'webhook', url: 'http://127.0.0.1:9000/' }, 'full'],
    [{ type: 'command', command: ['tell'] }, 'full'],
    [{ type: 'desktop' }, 'full'],
    [{ type: 'desktop', text: 'none' }, 'none'],
  ])('%j has text %s', (channel, text) => {
    expect(channels(channel)[0]?.text).toBe(text);
  });

  it.each([
    ['http://100.64.0.1', true],
    ['http://100.127.255.254:80', true],
    ['http://100.128.0.1', false],
    ['http://[fd7a:115c:a1e0::53]', true],
    ['http://[fd7a:115c:a1e1::53]', false],
    ['http://[::1]:8080', true],
    ['http://127.8.8.8', true],
    ['http://localhost', true],
    ['http://desk.tail1234.ts.net.', true],
    ['http://ts.net.example.com', false],
    ['http://notts.net', false],
    // A short name may resolve to anything.
    ['http://desk', false],
  ])('%s is in your own network: %s', (url, expected) => {
    expect(isOwnNetwork(url)).toBe(expected);
  });
});

describe('an error names the setting and what was expected', () => {
  it.each([
    [7, ': expected an object, got a number'],
    [{}, '.type: expected one of ntfy, webhook, command, desktop, got none of them'],
    [{ type: 'webhok' }, '.type: expected one of ntfy, webhook, command, desktop, got "webhok"; did you mean webhook?'],
    [{ type: 'ntfy' }, '.url: expected a string, got nothing\n.topic: expected a string, got nothing'],
    [
      { ...NTFY, url: 'ntfy.sh', topic: 'a b' },
      '.url: expected an http:// or https:// URL; got "ntfy.sh"\n.topic: expected 1 to 64 letters, digits, - and _, got something else',
    ],
    [
      { ...NTFY, url: 'https://u:p@h' },
      '.url: expected a URL without user name and password; use the key "token"; got "https://…@h"',
    ],
    [{ ...NTFY, tokn: 'x' }, '.tokn: unknown key; did you mean token?'],
    [{ ...NTFY, token: '' }, '.token: expected a secret, got an empty string'],
    [
      { type: 'webhook', url: 'https://u:p@h/path-s3cret' },
      '.url: expected a URL without user name and password; a webhook is signed, with the key "secret"; got "https://…@h"',
    ],
    [{ type: 'command', command: [] }, '.command: expected a program and its arguments, as [PROGRAM, ARGUMENT, …]'],
    [{ type: 'command', command: 'tell' }, '.command: expected [PROGRAM, ARGUMENT, …], got a string'],
    [{ type: 'desktop', text: 'some' }, '.text: expected one of none, title, full, got a string'],
    [
      { type: 'desktop', events: ['done', 'dead'] },
      '.events[1]: expected one of permission, question, unanswered, done, failed, stalled, got a string',
    ],
    [
      { type: 'desktop', instances: [''] },
      '.instances[0]: expected 1 to 256 characters, none of them control or invisible, got ""',
    ],
    [{ type: 'desktop', hours: '9-17' }, '.hours: expected two different times as in 08:00-22:00, got "9-17"'],
    [
      { type: 'desktop', hours: '09:00-09:00' },
      '.hours: expected two different times as in 08:00-22:00, got "09:00-09:00"',
    ],
  ])('%j', (channel, expected) => {
    expect(problemsOfChannel(channel).join('\n')).toBe(expected);
  });

  it('reports a channel name that is used twice', () => {
    const channels = [
      { type: 'desktop', name: 'a' },
      { ...NTFY, name: 'a' },
    ];
    expect(problemsOf({ config: { notify: { channels } } })).toEqual([
      `${CONFIG_PATH}: notify.channels[1].name: expected a unique name, got "a" a second time`,
    ]);
  });

  it.each([
    [
      { channels: [], minTurnSeconds: -1 },
      'notify.minTurnSeconds: expected a whole number of seconds from 0 to 86400, got a number',
    ],
    [
      { channels: [], repeatAfterMinutes: '5' },
      'notify.repeatAfterMinutes: expected a whole number of minutes from 0 to 1440, got a string',
    ],
    [{ channels: {} }, 'notify.channels: expected an array, got an object'],
    [[], 'notify: expected an object, got an array'],
  ])('%j', (notify, expected) => {
    expect(problemsOf({ config: { notify } })).toEqual([`${CONFIG_PATH}: ${expected}`]);
  });
});

it('warns about a token over plain http to another machine, except within the tailnet', () => {
  const warn = (url: string) => load({ config: { notify: { channels: [{ ...NTFY, url, token: 'tk' }] } } }).warnings;
  expect(warn('http://ntfy.example.com')).toEqual([
    `${CONFIG_PATH}: notify.channels[0].url: sends a token over plain http to another machine; use https`,
  ]);
  expect(warn('http://desk.tail1234.ts.net')).toEqual([]);
});
