import { expect, test } from 'vitest';

import { readRoute } from '../../src/node/proxy/read-routes.ts';

const directory = '/home/ada/my project';
const pinned = 'directory=%2Fhome%2Fada%2Fmy+project';
const decideGet = (path: string, query = '') => readRoute({ method: 'GET', path, query }, directory);

test.each([
  ['/global/health', '', `/global/health?${pinned}`],
  ['/path', '', `/path?${pinned}`],
  ['/event', '', `/event?${pinned}`],
  ['/permission', '', `/permission?${pinned}`],
  ['/question', '', `/question?${pinned}`],
  ['/session/status', '?workspace=w', `/session/status?${pinned}`],
  ['/session', '?roots=true&limit=1&x=2', `/session?roots=true&limit=1&${pinned}`],
  ['/session', `?${pinned}`, `/session?${pinned}`],
])('GET %s%s is allowed, with the directory pinned', (path, query, forwarded) => {
  expect(decideGet(path, query)).toEqual({ path: forwarded });
});

test.each(['/session/ses_1', '/session/ses_1/message', '/session/ses_1/message/msg_1'])(
  'GET %s is allowed for a session of the directory',
  (path) => {
    expect(decideGet(path)).toEqual({ path: `${path}?${pinned}`, session: 'ses_1' });
  },
);

test.each([
  ['changes', ['POST /session', 'POST /session/ses_1/prompt_async', 'POST /permission/per_1/reply']],
  ['methods other than GET', ['HEAD /session', 'OPTIONS /session']],
  ['settings and keys', ['GET /config', 'GET /provider', 'GET /global/config']],
  ['files and terminals', ['GET /file/content', 'GET /find/file', 'GET /pty/pty_1/connect']],
  ['other directories', ['GET /global/event', 'GET /experimental/session', 'GET /api/session']],
  ['other routes of a session', ['GET /session/ses_1/share', 'GET /session/ses_1/message/msg_1/part']],
  [
    'other spellings of allowed paths',
    ['GET /', 'GET /Session', 'GET /session/', 'GET /session/%73es_1', 'GET /session/ses_1/message/'],
  ],
])('requests for %s are refused', (_, requests) => {
  for (const request of requests) {
    const [method = '', path = ''] = request.split(' ');
    const decision = readRoute({ method, path, query: '' }, directory);
    expect.soft(decision, request).toEqual({ refusal: expect.stringContaining('"read"') });
  }
});

test.each(['?directory=/etc', '?directory=', `?${pinned}&directory=/etc`, '?%64irectory=/etc'])(
  'a query with another directory is refused: %s',
  (query) => {
    expect(decideGet('/session', query)).toEqual({ refusal: expect.stringContaining('directory') });
  },
);
