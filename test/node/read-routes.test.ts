import { describe, expect, test } from 'vitest';

import { readRoute } from '../../src/node/proxy/read-routes.ts';

const directory = '/home/ada/my project';
const pinned = 'directory=%2Fhome%2Fada%2Fmy+project';
const ask = (method: string, path: string, query = ''): ReturnType<typeof readRoute> =>
  readRoute({ method, path, query }, directory);

describe('allowed, with the directory pinned', () => {
  test.each([
    ['/global/health', '', `/global/health?${pinned}`],
    ['/path', '', `/path?${pinned}`],
    ['/event', '', `/event?${pinned}`],
    ['/permission', '', `/permission?${pinned}`],
    ['/question', '', `/question?${pinned}`],
    ['/session/status', '?workspace=w', `/session/status?${pinned}`],
    ['/session', '?roots=true&limit=1&x=2', `/session?roots=true&limit=1&${pinned}`],
    ['/session', `?${pinned}`, `/session?${pinned}`],
  ])('%s%s', (path, query, sent) => {
    expect(ask('GET', path, query)).toEqual({ path: sent });
  });

  test.each([
    ['/session/ses_1', '/session/ses_1?'],
    ['/session/ses_1/message', '/session/ses_1/message?'],
    ['/session/ses_1/message/msg_1', '/session/ses_1/message/msg_1?'],
  ])('%s, for a session of that directory', (path, sent) => {
    expect(ask('GET', path)).toEqual({ path: sent + pinned, session: 'ses_1' });
  });
});

describe('refused', () => {
  test.each([
    ['POST', '/session'],
    ['POST', '/session/ses_1/prompt_async'],
    ['POST', '/permission/per_1/reply'],
    ['HEAD', '/session'],
    ['OPTIONS', '/session'],
    ['GET', '/'],
    ['GET', '/config'],
    ['GET', '/provider'],
    ['GET', '/file/content'],
    ['GET', '/find/file'],
    ['GET', '/pty/pty_1/connect'],
    ['GET', '/global/event'],
    ['GET', '/global/config'],
    ['GET', '/experimental/session'],
    ['GET', '/api/session'],
    ['GET', '/session/ses_1/share'],
    ['GET', '/session/ses_1/message/msg_1/part'],
    ['GET', '/session/'],
    ['GET', '/session/%73es_1'],
    ['GET', '/session/ses_1/message/'],
    ['GET', '/Session'],
  ])('%s %s', (method, path) => {
    expect(ask(method, path)).toEqual({ refusal: expect.stringContaining('"read"') });
  });

  test.each(['?directory=/etc', '?directory=', `?${pinned}&directory=/etc`, '?%64irectory=/etc'])(
    'another directory: %s',
    (query) => {
      expect(ask('GET', '/session', query)).toEqual({ refusal: expect.stringContaining('directory') });
    },
  );
});
