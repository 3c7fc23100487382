import { describe, expect, test } from 'vitest';

import { givesSecrets, readServiceRoute, withoutToken } from '../../src/node/proxy/service-routes.ts';

const readRoute = (
  method: string,
  path: string,
  query = '',
  dialect: 'opencode-2' | 'opencode-2-preview' = 'opencode-2',
) => readServiceRoute({ method, path, query }, dialect);

test.each([
  ['passwords', ['/api/pair', '/api/pair/', '/API/Pair', '/api/p%61ir', '/api/p%2561ir'], true],
  ['cookies', ['/auth/connect/c0de', '/Auth/connect/c0de'], true],
  ['keys', ['/api/credential', '/api/credential/cred_1', '/api/credential/cred_1/activate'], true],
  ['tokens', ['/api/experimental/voice/session'], true],
  ['no secrets', ['/api/session', '/api/pairs', '/api/pty/pty_1/connect', '/api/config', '/api/fs/read/auth/x'], false],
])('recognizes paths that give out %s', (_, paths, isSecret) => {
  for (const path of paths) expect.soft(givesSecrets(path), path).toBe(isSecret);
});

test.each([
  ['', ''],
  ['?', ''],
  ['?auth_token=YQ==', ''],
  ['?limit=2&auth_token=YQ==&location[directory]=/a%2Fb', '?limit=2&location[directory]=/a%2Fb'],
  ['?AUTH%5Ftoken=a&auth_token=b&x', '?x'],
  ['?not_auth_token=a', '?not_auth_token=a'],
])('the query %j is sent as %j', (query, kept) => {
  expect(withoutToken(query)).toBe(kept);
});

describe('the role read of an OpenCode 2', () => {
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
  ])('gets %s%s', (path, query, sent) => {
    expect(readRoute('GET', path, query)).toEqual({ path: sent });
  });

  test('gets the events of the whole service', () => {
    expect(readRoute('GET', '/api/event', '?x=1')).toEqual({ path: '/api/event', isWholeStream: true });
  });

  test.each(['permission', 'form', 'question', 'event', 'history'])(
    'gets %s only of a session that runs, since the request loads the session’s directory',
    (route) => {
      const path = `/api/session/ses_1/${route}`;
      expect(readRoute('GET', path)).toEqual({ path, active: 'ses_1' });
    },
  );

  test.each(['', '/message', '/message/msg_1', '/permission', '/question', '/event'])(
    'gets %s of the preview only of a session that runs',
    (suffix) => {
      const path = `/api/session/ses_1${suffix}`;
      expect(readRoute('GET', path, '', 'opencode-2-preview')).toEqual({ path, active: 'ses_1' });
    },
  );

  test.each([
    ['changes', ['POST /api/session', 'POST /api/session/ses_1/prompt', 'POST /api/session/ses_1/interrupt']],
    ['methods other than GET', ['HEAD /api/session']],
    ['settings and models', ['GET /api/agent', 'GET /api/model', 'GET /api/provider', 'GET /api/config']],
    ['files and shells', ['GET /api/fs/read/etc/passwd', 'GET /api/pty', 'GET /api/shell']],
    ['directories', ['GET /api/location', 'GET /api/debug/location', 'GET /api/permission/request']],
    ['routes of OpenCode 1', ['GET /', 'GET /openapi.json', 'GET /global/health', 'GET /session']],
    ['details of a session', ['GET /api/session/ses_1/diff', 'GET /api/session/ses_1/context']],
    ['single requests', ['GET /api/session/ses_1/permission/per_1', 'GET /api/experimental/session/ses_1/terminal']],
    ['other spellings', ['GET /api/Session', 'GET /api/%73ession', 'GET /api/session/', 'GET /api/session/ses_1/']],
  ])('does not get %s', (_, requests) => {
    for (const request of requests) {
      const [method = '', path = ''] = request.split(' ');
      expect.soft(readRoute(method, path), request).toEqual({ refusal: expect.stringContaining('"read"') });
    }
  });
});
