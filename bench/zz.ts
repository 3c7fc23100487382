import { Stage } from '/work/main/bench/stage.ts';
import { startFigures } from '/work/main/bench/figures/start.ts';
import { surveyFigures } from '/work/main/bench/figures/survey.ts';
import { renderTable } from '/work/main/bench/table.ts';
await using stage = await Stage.open();
if (process.argv[2] === 'start') console.log(renderTable(await startFigures(stage, 11)));
else console.log(renderTable(await surveyFigures(stage, [1,10,50,200], 11)));
