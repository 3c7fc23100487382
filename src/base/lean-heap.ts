import { setFlagsFromString } from 'node:v8';

/**
 * This process lives for days beside an editor and works for milliseconds at a time: memory counts for more than the last
 * bit of speed. V8 otherwise lets the young generation grow to 16 MB a half for one large answer and keeps it, and the old one to
 * twice what lives (Node 20.20). `--optimize-for-size` keeps 7 MB less of 200 instances, and takes half as much time again to list
 * them. Imported first, before anything has allocated much.
 */
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=10');
