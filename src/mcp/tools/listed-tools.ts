import type { Toolset } from '../../config/settings.ts';
import type { ListedTool } from './listing.ts';

/** A tool's entry in tools/list with what the switches look at. */
interface ReadyTool {
  readonly toolset: Toolset;
  readonly readOnly: boolean;
  readonly listed: ListedTool;
}

/** Put in by the build, which makes the entries: turning zod schemas to JSON at each start took a tenth of it. */
declare const __READY_TOOLS__: readonly ReadyTool[] | undefined;

/** What tools/list shows under a person's switches, in its order. */
export async function listedTools(toolsets: readonly Toolset[], readOnly: boolean): Promise<readonly ListedTool[]> {
  const ready = typeof __READY_TOOLS__ === 'object' ? __READY_TOOLS__ : await makeReadyTools();
  return ready
    .filter((tool) => toolsets.includes(tool.toolset) && (!readOnly || tool.readOnly))
    .map(({ listed }) => listed);
}

/** For the build, and for source that runs unbundled. */
export async function makeReadyTools(): Promise<readonly ReadyTool[]> {
  const [{ TOOLS }, { listTool }] = await Promise.all([import('./tools.ts'), import('./listing.ts')]);
  return TOOLS.map((tool) => ({
    toolset: tool.toolset,
    readOnly: tool.annotations.readOnlyHint,
    listed: listTool(tool),
  }));
}
