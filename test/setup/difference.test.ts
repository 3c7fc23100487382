import { expect, test } from 'vitest';

import { difference } from '../../src/setup/difference.ts';

test('shows an added line with its number, but not the previous line, which gains a comma', () => {
  const before = '{\n  "key": "sk-secret"\n}\n';
  const after = '{\n  "key": "sk-secret",\n  "mcp": {\n    "a": 1\n  }\n}\n';
  expect(difference(before, after)).toEqual(['line 3:', '+   "mcp": {', '+     "a": 1', '+   }']);
  expect(difference(after, before)).toEqual(['line 3:', '-   "mcp": {', '-     "a": 1', '-   }']);
});

test('shows a changed line as it was and as it is', () => {
  expect(difference('a\nb\nc\n', 'a\nx\nc\n')).toEqual(['line 2:', '- b', '+ x']);
});

test('shows only the changed part of a file in one line', () => {
  const before = '{"key":"sk-secret"}';
  const after = '{"key":"sk-secret", "mcp": {"a":1}}';
  expect(difference(before, after)).toEqual(['line 1:', '+ …, "mcp": {"a":1}…']);
  expect(difference(after, before)).toEqual(['line 1:', '- …, "mcp": {"a":1}…']);
  const long = `{"key":"sk-secret","more":"${'x'.repeat(200)}","mcp":{"a":1}}`;
  expect(difference(long, long.replace('1', '2'))).toEqual(['line 1:', '- …1…', '+ …2…']);
});

test('shows an empty object that gains a key', () => {
  expect(difference('{}', '{\n  "a": 1\n}')).toEqual(['line 1:', '- {}', '+ {', '+   "a": 1', '+ }']);
});
