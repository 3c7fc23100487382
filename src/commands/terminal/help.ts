import { settingsHelp } from '../../config/help.ts';
import { initHelp } from '../../setup/help.ts';

/** One screen: 24 lines of 80 columns. */
const HELP = `opencode-mcp finds every OpenCode instance you run and drives them.

In a shell (NAME may be a part of a name that only one has):
  list                    what each instance does (or ls); --watch follows
  send NAME MESSAGE…      send a message, show the answer as it comes
  read NAME [SESSION]     the messages of a session
  wait [NAME…]            until the first is idle, needs something or fails
  respond NAME            answer its request for a permission, or its question
  abort NAME [SESSION]    stop what runs
  sessions NAME           its sessions
  attach NAME [SESSION]   opencode's own terminal on it; open: its web page
  dashboard               all instances in the browser, to see and to drive
Set up:
  init                    add it to the MCP clients on this machine
  doctor [NAME]           why an instance is missing, and what to do
  node                    serve your instances to your own tailnet
  watch, notify --test    notifications without node; try every channel
  completion SHELL        Tab completion for bash, zsh or fish
Without a command, on pipes, it is the MCP server that clients start.
help COMMAND has options and examples, help settings all settings; --version.
Exit codes: 0 done, 1 failed, aborted or not found, 2 wrong usage, 3 it waits
for somebody, 4 nothing was sent (busy, not reached), 124 it still runs.
`;

export interface CommandUsage {
  /** `send NAME MESSAGE…` */
  readonly usage: string;
  /** `--reply once|reject`, `--message ID [--offset N]` */
  readonly options: readonly string[];
}

interface CommandHelp {
  readonly usage: string;
  readonly text: string;
  readonly options?: readonly (readonly [string, string])[];
  readonly examples: readonly string[];
}

const TIMEOUT = ['--timeout SECONDS', 'stop following after this time, with exit code 124 (default: 7 days)'] as const;
const JSON_OPTION = ['--json', 'the result as JSON on standard output, once complete'] as const;

const COMMANDS: Readonly<Record<string, CommandHelp>> = {
  list: {
    usage: 'list [PART]',
    text: 'Every instance, or those with PART in their names: what each does or waits for, and where it runs. Columns that\ndo not fit the terminal are left out; a pipe gets all of them.',
    options: [['--watch', 'keep showing changes until Ctrl-C; with --json a line for each change'], JSON_OPTION],
    examples: [
      'list',
      'ls laptop',
      'list --watch',
      'list --json | jq -r \'.instances[] | select(.state == "waiting").name\'',
    ],
  },
  send: {
    usage: 'send NAME MESSAGE…',
    text: 'Sends a message to the latest session of an instance, or a new one. The answer goes to standard output as it\ncomes, everything else to standard error. In a terminal you are asked for permissions at once; elsewhere the exit\ncode is 3. Ctrl-C asks whether to stop following (the turn goes on) or to abort; a second one stops following.\nMESSAGE - reads it from standard input; after -- it may begin with a dash.',
    options: [
      ['--session SESSION', 'an id or its beginning, or a unique title'],
      ['--queue', 'if busy: send once it is idle (default: send nothing, exit code 4)'],
      ['--interrupt', 'if busy: abort that first'],
      ['--agent NAME, --model PROVIDER/MODEL', 'who answers'],
      ['--request-id ID', 'repeating it with the same ID sends nothing twice'],
      ['--no-wait', 'exit once the message is accepted'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: [
      'send laptop run the tests and fix what fails',
      'git diff | opencode-mcp send review -',
      'send web --queue --timeout 600 "and now the docs"',
    ],
  },
  read: {
    usage: 'read NAME [SESSION]',
    text: 'The newest messages of a session (default: the latest one).',
    options: [
      ['--limit N', 'number of messages (default: 10, at most 100)'],
      ['--before CURSOR', 'older messages; read prints the cursor if there are more'],
      ['--message ID [--offset N]', 'one message, from a character offset; for one that you sent, its answer'],
      JSON_OPTION,
    ],
    examples: ['read laptop', 'read laptop "Fix the build" --limit 3'],
  },
  wait: {
    usage: 'wait [NAME…]',
    text: 'Waits until the first of these instances (default: all that work) is idle, needs something, fails or vanishes;\nthen prints its answer. In a terminal you are asked for permissions at once.',
    options: [
      ['--all', 'wait for all of them'],
      ['--session SESSION', 'with one NAME: wait for this session'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: ['wait', 'wait laptop server --all', 'wait laptop --timeout 60 || echo "code $?"'],
  },
  respond: {
    usage: 'respond NAME',
    text: 'Shows what an agent waits for (the exact command, or the question and its choices), asks you, and follows the\nturn. With --reply or --answer you are not asked, unless your settings let only a person decide.',
    options: [
      ['--reply once|reject', 'answer a permission; reject also answers a question'],
      ['--message TEXT', 'with --reply reject: what to do instead'],
      ['--answer TEXT', 'answer a question; several as [["Red"],["Big","Small"]]'],
      ['--request ID', 'which one, if several wait'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: [
      'respond laptop',
      'respond laptop --reply reject --message "use the staging host"',
      'respond laptop --answer Blue',
    ],
  },
  abort: {
    usage: 'abort NAME [SESSION]',
    text: 'Stops the running session, or the given one, and checks that it stopped.',
    options: [JSON_OPTION],
    examples: ['abort laptop'],
  },
  sessions: {
    usage: 'sessions NAME',
    text: 'The sessions of an instance, latest first.',
    options: [['--search TEXT', 'only those with TEXT in their titles'], JSON_OPTION],
    examples: ['sessions laptop', 'sessions laptop --search build'],
  },
  attach: {
    usage: 'attach NAME [SESSION]',
    text: "Opens this machine's opencode (OPENCODE_BIN) on an instance, wherever that runs. If the instance needs a password or\ncannot be reached directly, a local port forwards to it until opencode ends. The exit code is opencode's.",
    examples: [
      'attach laptop',
      'attach laptop "Fix the build"',
      'OPENCODE_BIN=~/opencode-2/bin/opencode opencode-mcp attach desk:service',
    ],
  },
  open: {
    usage: 'open NAME [SESSION]',
    text: 'Opens the web page of an instance in the browser. If the instance needs a password or cannot be reached directly, a local\nport serves the page to the first browser that opens it, until Ctrl-C.',
    options: [['--print', 'print the URL instead of starting a browser']],
    examples: ['open laptop', 'open laptop --print'],
  },
  completion: {
    usage: 'completion SHELL',
    text: 'Prints a script for bash, zsh or fish that completes commands, options and instance names (of the last listing,\nand of this machine) at Tab.',
    examples: [
      "echo 'source <(opencode-mcp completion bash)' >> ~/.bashrc",
      "echo 'source <(opencode-mcp completion zsh)' >> ~/.zshrc",
      "echo 'opencode-mcp completion fish | source' >> ~/.config/fish/config.fish",
    ],
  },
  doctor: {
    usage: 'doctor [NAME]',
    text: 'Checks everything (sources, instances, tailnet, relay, LAN, MCP clients, files) for at most 20 seconds, changes\nnothing, and prints what is broken and what to do; exit code 1 if something is. With NAME: traces that instance\nfrom the source that found it, or left it out, to its name.',
    options: [JSON_OPTION],
    examples: ['doctor', 'doctor laptop-web', "doctor --json | jq -r '.todo[] | .command // .text'"],
  },
  dashboard: {
    usage: 'dashboard',
    text: 'Opens the page of your instances in the browser: what needs you, works and is done. Only the first browser on this machine\nthat opens it has access, until Ctrl-C. A node service shows the page to your other devices.',
    options: [['--print', 'print the URL instead of starting a browser']],
    examples: ['dashboard', 'dashboard --print'],
  },
  node: {
    usage: 'node',
    text: 'Serves your instances, and their page, to your other machines on the tailnet, until you stop it.',
    options: [
      ['--revoke', 'cut all connections to your node services and dashboards at once, and refuse new ones'],
      ['--allow', 'let them serve again'],
    ],
    examples: ['node', 'node --revoke'],
  },
  watch: {
    usage: 'watch',
    text: 'Watches your opencodes on this machine and notifies you as "notify" in the config file says, until you stop it. For a\nmachine without a tailnet; a node service does the same.',
    examples: ['watch'],
  },
  notify: {
    usage: 'notify --test',
    text: 'Sends a test notification to every channel under "notify" in the config file, whatever its rules, and prints the\nresults; exit code 1 if one failed. docs/notifications.md has examples.',
    options: [['--test', 'required']],
    examples: ['notify --test'],
  },
  serve: {
    usage: 'serve',
    text: 'The MCP server on standard input and output, in a terminal too.',
    examples: ['serve --read-only'],
  },
};

/** Topics of `help` beside `init`. */
export const HELP_TOPICS: readonly string[] = [...Object.keys(COMMANDS), 'settings'];

/** For completion. */
export const USAGES: ReadonlyMap<string, CommandUsage> = new Map([
  ...Object.entries(COMMANDS).map(([name, { usage, options = [] }]) => {
    return [name, { usage, options: options.map(([flags]) => flags) }] as const;
  }),
  ['ls', { usage: 'ls [PART]', options: (COMMANDS['list']?.options ?? []).map(([flags]) => flags) }],
  ['init', { usage: 'init', options: initHelp().match(/^ +--[a-z]+(?: [A-Z@]+)?/gm) ?? [] }],
  ['help', { usage: 'help COMMAND', options: [] }],
]);

/** The overview without a topic; undefined for an unknown topic. */
export function helpText(topic?: string): string | undefined {
  if (topic === undefined) return HELP;
  if (topic === 'settings') return settingsHelp('opencode-mcp');
  const help = Object.hasOwn(COMMANDS, topic) ? COMMANDS[topic] : undefined;
  return help && commandHelp(help);
}

function commandHelp({ usage, text, options = [], examples }: CommandHelp): string {
  const width = Math.max(0, ...options.map(([flag]) => flag.length));
  return [
    `Usage: opencode-mcp ${usage} [options]`,
    '',
    text,
    ...(options.length === 0 ? [] : ['', 'Options, beside the settings (opencode-mcp help settings):']),
    ...options.map(([flag, what]) => `  ${flag.padEnd(width)}  ${what}`),
    '',
    'Examples:',
    ...examples.map((example) => `  ${example.includes('opencode-mcp ') ? '' : 'opencode-mcp '}${example}`),
    '',
  ].join('\n');
}
