import { rmSync } from 'node:fs';
import { type FileSystem, nodeFileSystem } from '../../src/discovery/folder/file-system.ts';
import { type HintingStage, holdUp, type Subject } from './conformance.ts';
import { fileSystem } from './registry-stage.ts';

/** A conformance stage whose source reads one directory. */
export interface FolderStage extends HintingStage {
  readonly directory: string;
}

/** The states of a source over a directory, for the conformance suite. `failing` replaces a call that fails after others succeeded. */
export function folderSubject(
  name: string,
  stage: (fs?: FileSystem) => Promise<FolderStage>,
  failing: Partial<FileSystem>,
): Subject {
  return {
    name,
    working: () => stage(),
    hinting: () => stage(),
    unavailable: async () => {
      const opened = await stage();
      rmSync(opened.directory, { recursive: true });
      return opened;
    },
    failingMidway: () => stage(fileSystem(failing)),
    hanging: async () => {
      const hold = holdUp();
      let scans = 0;
      const readdir = async (path: string): Promise<string[]> => {
        scans += 1;
        if (scans > 1) throw new Error('Expected one scan at a time');
        await hold.pass();
        scans -= 1;
        return nodeFileSystem.readdir(path);
      };
      return { ...(await stage(fileSystem({ readdir }))), ...hold };
    },
  };
}
