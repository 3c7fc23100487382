import fc from 'fast-check';
import { stringify } from 'smol-toml';
import { describe, expect, test } from 'vitest';

import { CLIENTS, type Client, type Words } from '../../src/setup/clients.ts';
import { editConfig, snippet } from '../../src/setup/edit.ts';
import { readJson } from '../../src/setup/json-edit.ts';
import { readToml } from '../../src/setup/toml-edit.ts';

const WORDS: Words = ['/usr/bin/node', '/usr/local/bin/opencode-mcp'];
const client = (name: string): Client => {
  const found = CLIENTS.find((one) => one.name === name);
  if (found === undefined) throw new Error(`Expected a client, got ${name}`);
  return found;
};
const add = (name: string, text: string, words = WORDS) => editConfig(client(name), text, { kind: 'add', words });
const remove = (name: string, text: string) => editConfig(client(name), text, { kind: 'remove' });

/** Files as people have them, as the diff that adds the entry. */
const FIXTURES: readonly (readonly [title: string, client: string, diff: string])[] = [
  [
    'Claude Code: beside projects and servers of its own',
    'claude-code',
    `
 {
   "numStartups": 12,
   "mcpServers": {
     "github": {
       "type": "http",
       "url": "https://example.com/mcp"
+    },
+    "opencode": {
+      "type": "stdio",
+      "command": "/usr/bin/node",
+      "args": ["/usr/local/bin/opencode-mcp"]
     }
   },
   "projects": {}
 }`,
  ],
  [
    'Claude Desktop (fixture): preferences only',
    'claude-desktop',
    `
 {
   "preferences": {
     "quickEntry": "off"
+  },
+  "mcpServers": {
+    "opencode": {
+      "command": "/usr/bin/node",
+      "args": ["/usr/local/bin/opencode-mcp"]
+    }
   }
 }
`,
  ],
  [
    'Codex: comments, another server, a table after it',
    'codex',
    `
 # my Codex
 model = "gpt-5" # the good one

 [mcp_servers.docs]
 command = "docs-mcp"
 args = ["--fast"]

 [projects."/home/ada/app"]
 trust_level = "trusted"
+
+[mcp_servers.opencode]
+command = "/usr/bin/node"
+args = ["/usr/local/bin/opencode-mcp"]
`,
  ],
  [
    'opencode: comments after the last value, tabs',
    'opencode',
    `
 {
 	"$schema": "https://opencode.ai/config.json", // for the editor
-	"model": "anthropic/claude" // mine
+	"model": "anthropic/claude", // mine
+	"mcp": {
+		"opencode": {
+			"type": "local",
+			"command": ["/usr/bin/node", "/usr/local/bin/opencode-mcp"]
+		}
+	}
 	// nothing more
 }
`,
  ],
  [
    'opencode 2 (fixture): its own form, which opencode 1.18.33 reads too',
    'opencode',
    `
 {
   "mcp": {
     "timeout": { "startup": 5000 },
     "servers": {
       "docs": { "type": "local", "command": ["docs-mcp"] },
+      "opencode": {
+        "type": "local",
+        "command": ["/usr/bin/node", "/usr/local/bin/opencode-mcp"]
+      },
     },
   },
 }
`,
  ],
  [
    'VS Code (fixture): inputs and a comment in the empty list of servers',
    'vscode',
    `
 {
 	"inputs": [],
 	"servers": {
 		// none yet
+		"opencode": {
+			"type": "stdio",
+			"command": "/usr/bin/node",
+			"args": ["/usr/local/bin/opencode-mcp"]
+		}
 	}
 }`,
  ],
  [
    'Cursor (fixture): one line stays one line',
    'cursor',
    `
-{"mcpServers":{"docs":{"command":"docs-mcp"}}}
+{"mcpServers":{"docs":{"command":"docs-mcp"}, "opencode": {"command":"/usr/bin/node","args":["/usr/local/bin/opencode-mcp"]}}}`,
  ],
  [
    'Gemini CLI: settings only',
    'gemini',
    `
 {
-    "security": { "folderTrust": { "enabled": true } }
+    "security": { "folderTrust": { "enabled": true } },
+    "mcpServers": {
+        "opencode": {
+            "command": "/usr/bin/node",
+            "args": ["/usr/local/bin/opencode-mcp"]
+        }
+    }
 }
`,
  ],
  [
    'Zed (fixture): comments before and after, trailing commas',
    'zed',
    `
 // Zed settings
 //
 {
   "theme": "One Dark", /* dark */
   "context_servers": {
     "docs": {
       "command": "docs-mcp",
       "args": [],
     }, // docs
+    "opencode": {
+      "source": "custom",
+      "command": "/usr/bin/node",
+      "args": ["/usr/local/bin/opencode-mcp"]
+    },
   },
   // the end
 }
`,
  ],
];

/** The file before (`-`) or after (`+`) the change. */
function side(diff: string, sign: '-' | '+', lineEnd: string): string {
  const lines = diff.split('\n').slice(1);
  const kept = lines.filter((line) => line === '' || line.startsWith(' ') || line.startsWith(sign));
  return kept.map((line) => line.slice(1)).join(lineEnd);
}

test.each(FIXTURES)('%s: gets exactly the entry, once, and loses it again', (_, name, diff) => {
  for (const lineEnd of ['\n', '\r\n']) {
    const before = side(diff, '-', lineEnd);
    const after = side(diff, '+', lineEnd);
    expect(add(name, before)).toEqual({ kind: 'add', text: after });
    expect(add(name, after)).toEqual({ kind: 'none', text: after });
    expect(remove(name, after)).toEqual({ kind: 'remove', text: before });
    expect(remove(name, before)).toEqual({ kind: 'none', text: before });
  }
});

test('every client accepts an empty file, a file of white space, and one with a byte order mark', () => {
  for (const { name } of CLIENTS) {
    expect(add(name, '')).toEqual({ kind: 'add', text: snippet(client(name), WORDS) });
    expect(add(name, ' \n').kind).toBe('add');
    const marked = add(name, `\ufeff${name === 'codex' ? 'a = 1\n' : '{"a": 1}'}`).text;
    expect(marked).toMatch(/^\ufeff(?:a = 1|\{"a": 1)/);
    expect(add(name, marked).kind).toBe('none');
  }
});

test('the removal restores any JSON file, however it is indented', () => {
  const value = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 5 });
  fc.assert(
    fc.property(value, fc.constantFrom(undefined, 1, 2, 4, '\t'), (generated, indent) => {
      fc.pre(!('mcpServers' in generated) && !('__proto__' in generated));
      const before = JSON.stringify(generated, null, indent);
      // Without -0, which JSON does not have.
      const object = JSON.parse(before) as Record<string, unknown>;
      const added = add('claude-code', before);
      expect(JSON.parse(added.text)).toEqual({
        ...object,
        mcpServers: { opencode: { type: 'stdio', command: WORDS[0], args: [WORDS[1]] } },
      });
      expect(JSON.parse(remove('claude-code', added.text).text)).toEqual(object);
      if (Object.keys(object).length > 0) expect(remove('claude-code', added.text).text).toBe(before);
    }),
  );
});

test('comments, line ends and commas anywhere are kept, and the removal restores the file', () => {
  const gaps = ['', ' ', '\n', '\r\n', ' // one\n', ' /* two */', '/* three\nfour */', '\n\t// five\n\t'];
  const trees = fc.dictionary(fc.constantFrom('a', 'b', 'zed', 'mcp'), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 });
  fc.assert(
    fc.property(trees, fc.infiniteStream(fc.constantFrom(...gaps)), fc.boolean(), (object, between, hasTrailing) => {
      const plain = JSON.stringify({ ...object, context_servers: { docs: { command: 'docs' } } }).replace(
        /\}\}\}$/,
        hasTrailing ? '}},}' : '}}}',
      );
      const tokens = plain.match(/"(?:[^"\\]|\\.)*"|[^\s{}[\],:"]+|[{}[\],:]/g) ?? [];
      const before = tokens.map((token) => `${between.next().value}${token}`).join('');
      const { text } = add('zed', before);
      expect(commentsOf(text)).toEqual(commentsOf(before));
      const removed = remove('zed', text).text;
      expect(commentsOf(removed)).toEqual(commentsOf(before));
      expect(removed.replaceAll(/\s/g, '')).toBe(before.replaceAll(/\s/g, ''));
    }),
    { numRuns: 1_000 },
  );
});

function commentsOf(text: string): readonly string[] {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|\/\/[^\r\n]*|\/\*[^]*?\*\//g) ?? [];
  return tokens.filter((token) => token.startsWith('/')).map((token) => token.trim());
}

describe('an existing entry', () => {
  const local = (command: string, args: readonly string[], more = {}): string =>
    JSON.stringify({ mcpServers: { mine: { command, args, ...more } } }, null, 2);
  const entryOf = (text: string): unknown => (readJson(text, 'json')['mcpServers'] as Record<string, unknown>)['mine'];

  test("with an old path is updated under its name; the person's arguments and settings stay", () => {
    const before = local('node', ['/old/dist/opencode-mcp.js', '--read-only'], { env: { RELAY_REGISTRY_DIR: '/r' } });
    const { kind, text } = add('cursor', before);
    expect(kind).toBe('update');
    expect(entryOf(text)).toEqual({
      command: WORDS[0],
      args: [WORDS[1], '--read-only'],
      env: { RELAY_REGISTRY_DIR: '/r' },
    });
  });

  test('with a bare name gets the absolute path', () => {
    const { text } = add('cursor', '{ "mcpServers": { "mine": { "command": "opencode-mcp" } } }');
    expect(entryOf(text)).toEqual({ command: WORDS[0], args: [WORDS[1]] });
  });

  test('on one line with another entry is removed from that line', () => {
    const ours = '"opencode": { "command": "opencode-mcp" }';
    const file = (line: string): string => `{\n  "servers": {\n    "docs": {}, // docs\n    ${line} // end\n  }\n}\n`;
    expect(remove('vscode', file(`${ours}, "next": {}`)).text).toBe(file('"next": {}'));
    expect(remove('vscode', file(`"next": {}, ${ours}`)).text).toBe(file('"next": {}'));
    expect(remove('vscode', `{\n  "servers": { // all\n    ${ours} } }`).text).toBe(
      '{\n  "servers": { // all\n     } }',
    );
  });

  test('that starts the program by ssh is recognized', () => {
    const words: Words = ['/usr/bin/ssh', '-o', 'BatchMode=yes', 'you@relay', "/usr/bin/node '/a b/opencode-mcp'"];
    const { kind, text } = add('cursor', local('ssh', ['you@relay', 'opencode-mcp']), words);
    expect(kind).toBe('update');
    expect(add('cursor', text, words).kind).toBe('none');
    expect(remove('cursor', text)).toEqual({ kind: 'remove', text: '{}' });
  });

  test.each([
    ['ssh', ['-p', '2222', 'you@relay', 'opencode-mcp', '--read-only']],
    ['ssh', ['you@relay', "bash -lc 'exec opencode-mcp'"]],
    ['wsl.exe', ['-d', 'Debian', '--', '/usr/bin/node', '/usr/local/bin/opencode-mcp']],
    ['C:\\node\\node.exe', ['C:\\npm\\opencode-mcp.js']],
  ])('that starts this program is found: %s %j', (command, args) =>
    expect(remove('cursor', local(command, args)).kind).toBe('remove'),
  );

  test.each([
    ['npx', ['-y', 'opencode-mcp']],
    ['uv', ['--directory', '/src/opencode-mcp', 'run', 'server']],
    ['ssh', ['opencode-mcp', 'other-mcp']],
    ['ssh', ['-J', 'opencode-mcp', 'you@relay', 'other-mcp', 'opencode-mcp']],
    ['node', ['/srv/opencode-mcp/server.js']],
  ])('that starts another program is left alone: %s %j', (command, args) => {
    const before = local(command, args);
    expect(remove('cursor', before).kind).toBe('none');
    expect(entryOf(add('cursor', before).text)).toEqual({ command, args });
  });

  test('of another server under our name is not replaced', () => {
    const before = '{ "mcpServers": { "opencode": { "command": "other" } } }';
    expect(() => add('cursor', before)).toThrow('it has another server called "opencode"');
    expect(remove('cursor', before).kind).toBe('none');
  });
});

describe('TOML', () => {
  test('an update changes the command and keeps comments, settings and tables that Codex adds below', () => {
    const before = `[mcp_servers.opencode] # ours
command = "opencode-mcp"
# slow model
tool_timeout_sec = 600

[mcp_servers.opencode.tools.send]
approval_mode = "approve"

# about docs
[mcp_servers.docs]
command = "docs"
`;
    const { kind, text } = add('codex', before);
    expect([kind, text]).toEqual([
      'update',
      before
        .replace('command = "opencode-mcp"', 'command = "/usr/bin/node"')
        .replace(
          '[mcp_servers.opencode] # ours\n',
          '[mcp_servers.opencode] # ours\nargs = ["/usr/local/bin/opencode-mcp"]\n',
        ),
    ]);
    const windows = text.replaceAll('\n', '\r\n');
    expect(remove('codex', windows).text).toBe('# about docs\r\n[mcp_servers.docs]\r\ncommand = "docs"\r\n');
    expect(remove('codex', text).text).toBe('# about docs\n[mcp_servers.docs]\ncommand = "docs"\n');
  });

  test('the removal restores any file', () => {
    const leaf = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string(), { maxLength: 2 }));
    const table = fc.dictionary(fc.string(), fc.oneof(leaf, fc.dictionary(fc.string(), leaf, { maxKeys: 2 })), {
      maxKeys: 4,
    });
    fc.assert(
      fc.property(table, fc.dictionary(fc.string({ minLength: 1 }), leaf, { maxKeys: 2 }), (object, docs) => {
        fc.pre(!('__proto__' in object) && !('mcp_servers' in object));
        const before =
          `# mine\n${stringify({ ...object, mcp_servers: { docs: { ...docs, command: 'docs' } } })}`.trimEnd();
        const { text } = add('codex', `${before}\n`);
        expect(text.startsWith(`${before}\n\n[mcp_servers.opencode]\n`)).toBe(true);
        expect(remove('codex', text).text).toBe(`${before}\n`);
      }),
    );
  });

  test('the removal keeps a header of the whole section', () => {
    const before = '[mcp_servers]\n';
    expect(remove('codex', add('codex', before).text).text).toBe(before);
  });

  test('quotes and backslashes in a path are preserved', () => {
    const words: Words = ['C:\\Program Files\\nodejs\\node.exe', 'C:\\a "b"\\opencode-mcp.js'];
    const { text } = add('codex', '', words);
    expect(readToml(text)).toEqual({ mcp_servers: { opencode: { command: words[0], args: [words[1]] } } });
  });

  test.each([
    ['an inline table', 'mcp_servers = { docs = { command = "docs" } }\n'],
    ['our entry as an inline table', 'mcp_servers.opencode = { command = "opencode-mcp" }\n'],
    ['arguments on several lines', '[mcp_servers.opencode]\ncommand = "node"\nargs = [\n  "/x/opencode-mcp.js",\n]\n'],
  ])('%s is refused, not damaged', (_, before) => {
    expect(() => add('codex', before)).toThrow('it is written in a way that cannot be changed safely');
  });
});

describe('the error for a malformed file has its line number and none of its text', () => {
  test.each([
    ['claude-code', '{\n  "a": 1,\n  "key": sk-secret\n}', 'line 3: invalid symbol'],
    ['claude-desktop', '{\n  // "sk-secret"\n  "a": 1\n}', 'line 2: invalid comment token'],
    ['claude-code', '{\n  "a": "sk-secret",\n}', 'line 3: property name expected'],
    ['zed', '{\n  "a": "sk-secret"\n', 'line 3: close brace expected'],
    ['codex', 'a = 1\nkey = sk-secret\n', 'line 2: '],
    ['cursor', '["sk-secret"]', 'it is not a JSON object'],
    ['cursor', '{"mcpServers": "sk-secret"}', 'mcpServers is not an object'],
    ['cursor', '{"mcpServers": {}, "mcpServers": {"a": {}}}', 'cannot be changed safely'],
  ])('%s: %j', (name, text, reason) => {
    expect(() => add(name, text)).toThrow(reason);
    expect(() => add(name, text)).not.toThrow('sk-secret');
  });
});
