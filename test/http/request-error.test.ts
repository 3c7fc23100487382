import { expect, test } from 'vitest';

import { networkError } from '../../src/http/request-error.ts';

test.each([
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'unreachable', /NODE_EXTRA_CA_CERTS/],
  // Additional authorities would not help.
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'unreachable', /for another host; write the URL with a name that it is for$/],
  ['CERT_HAS_EXPIRED', 'unreachable', /renew its certificate there, or set the clock$/],
  ['ENOTFOUND', 'unreachable', /no such host$/],
  ['HPE_INVALID_CONSTANT', 'broken', /does not speak HTTP$/],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'broken', /does not speak HTTPS$/],
  ['ECONNREFUSED', 'unreachable', /^GET x: ECONNREFUSED$/],
])('%s is %s, and says what to do', (code, kind, words) => {
  const error = networkError(Object.assign(new Error('failed'), { code }), 'GET x', false);
  expect(error).toMatchObject({ kind, message: expect.stringMatching(words) as string });
});
