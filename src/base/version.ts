/** Put in by the build; source that runs unbundled (tests) has none. */
declare const __OPENCODE_MCP_VERSION__: string | undefined;

export const VERSION = typeof __OPENCODE_MCP_VERSION__ === 'string' ? __OPENCODE_MCP_VERSION__ : '0.0.0-source';
