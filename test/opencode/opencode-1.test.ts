import { expect, test } from 'vitest';

import { createApi } from '../../src/opencode/dialects/opencode-1.ts';
import { listenHttp } from '../rig/http-listener.ts';

const REFUSAL = 'Your role here is "read". Anything else needs the role "drive".';

test.each([
  [
    'the plain text of a node service',
    'text/plain',
    `${REFUSAL}\n\u001b[31m\u202e`,
    `HTTP 403; it says "${REFUSAL.replaceAll('"', "'")}"`,
  ],
  ["opencode's own error", 'application/json', '{"name":"Bad","data":{"message":"no"}}', 'HTTP 403; it says "no"'],
  ['no web page', 'text/plain', '\n<html><body>Denied</body></html>', 'HTTP 403'],
  ['nothing', 'text/plain', '', 'HTTP 403'],
])('a refusal says why: %s', async (_, type, body, said) => {
  await using server = await listenHttp((request, response) => {
    request.resume();
    response.writeHead(403, { 'content-type': type }).end(body);
  });
  const api = createApi({ endpoint: { url: server.url, route: 'tailnet' } });
  const refused = api.abort('ses_1').catch((error: unknown) => error);
  expect(await refused).toMatchObject({ kind: 'status', message: `POST /session/:id/abort: ${said}` });
});
