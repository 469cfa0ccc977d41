"use client";

import { type ReactNode, useEffect, useRef } from "react";
import uPlot from "uplot";
import { formatNumber, formatTime, type TimeUnit } from "../format";

/** Height of a chart, in pixels. */
const HEIGHT_PX = 220;
/** Rows of a chart's table; further ones are counted. */
const TABLE_ROWS_MAX = 1_500;

/** A line or a row of bars of a chart. */
export interface ChartSeries {
  name: string;
  /** One value for each time. */
  values: number[];
}

interface TimeChartProps {
  /** What the chart shows, for those who do not see it. */
  label: string;
  /** In seconds since 1970, ascending. */
  times: number[];
  series: ChartSeries[];
  /** What lies between two times: it decides how they are written. */
  unit: TimeUnit;
  kind: "bars" | "lines";
}

/** The names of the custom properties in globals.css that series are drawn in, in order. */
const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4"];

const SECONDS = { minute: 60, day: 86_400 };
/** What may lie between two ticks: less would write the same twice. In seconds. */
const TICKS = {
  minute: [60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200],
  day: [1, 2, 7, 14, 28].map((days) => days * SECONDS.day),
};

/** Half of what lies between two times, so that the first and the last bar are shown whole. */
function paddingOf(times: number[], unit: TimeUnit): number {
  const [first = 0, second = first + SECONDS[unit]] = times;
  return (second - first) / 2;
}

function optionsOf({ times, series, unit, kind }: TimeChartProps, element: HTMLElement): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: color("--text-soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.7, 40] });
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    tzDate: (time) => uPlot.tzDate(new Date(time * 1_000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false } },
    legend: { live: true },
    scales: {
      x: {
        range: (_, min, max) =>
          kind === "bars" ? [min - paddingOf(times, unit), max + paddingOf(times, unit)] : [min, max],
      },
      y: { range: (_, _min, max) => [0, Math.max(1, max * 1.05)] },
    },
    axes: [
      {
        ...axis,
        incrs: TICKS[unit],
        values: (_, at) => at.map((time) => formatTime(time, unit).slice(unit === "day" ? 5 : 11)),
      },
      { ...axis, size: 60, values: (_, values) => values.map(formatNumber) },
    ],
    series: [
      { label: "Time", value: (_, time) => (time === null ? "–" : formatTime(time, unit)) },
      ...series.map(({ name }, n) => {
        const stroke = color(COLORS[n % COLORS.length] as string);
        const drawn = kind === "bars" && bars ? { paths: bars, fill: `${stroke}99` } : { fill: `${stroke}1a` };
        return { label: name, stroke, width: 1.5, points: { show: false }, ...drawn };
      }),
    ],
  };
}

/** Values over time, as a chart and, for who prefers it, as a table. */
export function TimeChart(props: TimeChartProps): ReactNode {
  const { label, times, series, unit } = props;
  const element = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;

  // Drawn anew with other data, another width, and other colors.
  useEffect(() => {
    const place = element.current;
    if (place === null) return;
    let chart: uPlot | undefined;
    const draw = () => {
      chart?.destroy();
      const data = [times, ...series.map(({ values }) => values)] as uPlot.AlignedData;
      chart = new uPlot(optionsOf(latest.current, place), data, place);
    };
    draw();
    const resize = new ResizeObserver(() => chart?.setSize({ width: place.clientWidth, height: HEIGHT_PX }));
    resize.observe(place);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      dark.removeEventListener("change", draw);
      resize.disconnect();
      chart?.destroy();
    };
  }, [times, series]);

  return (
    <figure className="chart">
      <div ref={element} role="img" aria-label={label} />
      <details>
        <summary>Show as a table</summary>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
        <section className="scrolled" tabIndex={0} aria-label={`${label}, as a table`}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time (UTC)</th>
                {series.map(({ name }, n) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: two series may have one name
                  <th key={n} scope="col" className="number">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {times.slice(-TABLE_ROWS_MAX).map((time, row, shown) => (
                <tr key={time}>
                  <th scope="row">{formatTime(time, unit)}</th>
                  {series.map(({ values }, n) => (
                    // biome-ignore lint/suspicious/noArrayIndexKey: two series may have one name
                    <td key={n} className="number">
                      {formatNumber(values[times.length - shown.length + row] ?? 0)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      </details>
    </figure>
  );
}
