import { describe, expect, test } from 'vitest';

import { isForNobody, readServiceRoute, withoutToken } from '../../src/node/proxy/service-routes.ts';

const ask = (method: string, path: string, query = '', dialect: 'opencode-2' | 'opencode-2-preview' = 'opencode-2') =>
  readServiceRoute({ method, path, query }, dialect);

describe('refused to every role', () => {
  test.each([
    '/api/pair',
    '/api/pair/',
    '/API/Pair',
    '/api/p%61ir',
    '/api/p%2561ir',
    '/auth/connect/c0de',
    '/Auth/connect/c0de',
    '/api/credential',
    '/api/credential/cred_1',
    '/api/credential/cred_1/activate',
    '/api/experimental/voice/session',
  ])('%s', (path) => {
    expect(isForNobody(path)).toBe(true);
  });

  test.each(['/api/session', '/api/pairs', '/api/pty/pty_1/connect', '/api/config', '/api/fs/read/auth/connect/x'])(
    'not %s',
    (path) => {
      expect(isForNobody(path)).toBe(false);
    },
  );
});

test.each([
  ['', ''],
  ['?', ''],
  ['?auth_token=YQ==', ''],
  ['?limit=2&auth_token=YQ==&location[directory]=/a%2Fb', '?limit=2&location[directory]=/a%2Fb'],
  ['?AUTH%5Ftoken=a&auth_token=b&x', '?x'],
  ['?not_auth_token=a', '?not_auth_token=a'],
])('the query %j goes on as %j', (query, kept) => {
  expect(withoutToken(query)).toBe(kept);
});

describe('reading an OpenCode 2', () => {
  test.each([
    ['/api/info', '', '/api/info'],
    ['/api/health', '', '/api/health'],
    ['/api/session/active', '', '/api/session/active'],
    ['/api/session', '?directory=/a&limit=3&location[directory]=/b', '/api/session?directory=%2Fa&limit=3'],
    ['/api/session/ses_1', '?auth_token=YQ==', '/api/session/ses_1'],
    ['/api/session/ses_1/message', '?limit=2&order=desc', '/api/session/ses_1/message?limit=2&order=desc'],
    ['/api/session/ses_1/message/msg_1', '', '/api/session/ses_1/message/msg_1'],
    [
      '/api/experimental/session/ses_1/log',
      '?after=3&follow=true',
      '/api/experimental/session/ses_1/log?after=3&follow=true',
    ],
  ])('%s%s', (path, query, sent) => {
    expect(ask('GET', path, query)).toEqual({ path: sent });
  });

  test('the events of all', () => {
    expect(ask('GET', '/api/event', '?x=1')).toEqual({ path: '/api/event', isEverybodys: true });
  });

  test.each(['permission', 'form', 'question', 'event', 'history'])(
    '%s only of a session that runs, for it loads its directory',
    (what) => {
      const path = `/api/session/ses_1/${what}`;
      expect(ask('GET', path)).toEqual({ path, active: 'ses_1' });
    },
  );

  test.each(['', '/message', '/message/msg_1', '/permission', '/question', '/event'])(
    'of the preview nothing below a session that does not run: %s',
    (below) => {
      const path = `/api/session/ses_1${below}`;
      expect(ask('GET', path, '', 'opencode-2-preview')).toEqual({ path, active: 'ses_1' });
    },
  );

  test.each([
    ['POST', '/api/session'],
    ['POST', '/api/session/ses_1/prompt'],
    ['POST', '/api/session/ses_1/interrupt'],
    ['HEAD', '/api/session'],
    ['GET', '/'],
    ['GET', '/api/Session'],
    ['GET', '/api/%73ession'],
    ['GET', '/api/session/'],
    ['GET', '/api/session/ses_1/'],
    ['GET', '/api/session/ses_1/diff'],
    ['GET', '/api/session/ses_1/context'],
    ['GET', '/api/session/ses_1/permission/per_1'],
    ['GET', '/api/experimental/session/ses_1/terminal'],
    ['GET', '/api/agent'],
    ['GET', '/api/model'],
    ['GET', '/api/provider'],
    ['GET', '/api/config'],
    ['GET', '/api/location'],
    ['GET', '/api/debug/location'],
    ['GET', '/api/permission/request'],
    ['GET', '/api/fs/read/etc/passwd'],
    ['GET', '/api/pty'],
    ['GET', '/api/shell'],
    ['GET', '/openapi.json'],
    ['GET', '/global/health'],
    ['GET', '/session'],
  ])('not %s %s', (method, path) => {
    expect(ask(method, path)).toEqual({ refusal: expect.stringContaining('"read"') });
  });
});
