// The picture. While a job runs: its last preview. When it is done: input and result on top of each other, with a native range as the divider, and
// for videos a player that steps both frame by frame. Refused content is never shown.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { number } from '../format.ts';
import { isVideo, type Shown } from '../jobs/status.ts';
import { Icon } from '../parts/icons.tsx';
import { useInput } from '../service/inputs.ts';
import type { JobWatch } from '../service/job-watch.ts';
import { resultUrl } from '../service/results.ts';
import { words } from '../words/words.ts';
import { Player } from './player.tsx';

interface StageProps {
  readonly watch: JobWatch;
  readonly job: Job;
  readonly status: Shown;
}

export function Stage({ watch, job, status }: StageProps) {
  const w = words.value;
  const preview = watch.preview.value;
  const shown = usePreview(preview);
  if (status === 'refused') return <Nothing icon="shield" text={w.job.noPreviewRefused} />;
  if (status === 'succeeded' && job.resultUrl !== undefined && !job.purgedAt && /^(image|video)\//.test(job.result?.mediaType ?? '')) {
    return <Compare job={job} url={resultUrl(job.resultUrl)} />;
  }
  if (preview || shown) {
    const live = status === 'running' && !shown?.held;
    const { url, frame } = shown ?? preview!;
    const text = live ? w.job.previewFrame(number(frame)) : w.job.lastFrame(number(frame));
    return (
      <section class="panel clipped" aria-label={live ? w.job.preview : w.job.lastPreview}>
        <div class={`stage${status === 'canceled' ? ' dim' : ''}`}>
          <img src={url} alt={text} />
          <span class="cap l">{text}</span>
        </div>
        {status === 'running' && (
          <div class="player">
            <span class={`live${live ? '' : ' off'}`}>{live ? w.live : w.job.heldFrame}</span>
            <button class="btn push" type="button" aria-pressed={shown?.held ?? false} onClick={() => shown?.hold(!shown.held)}>
              {w.job.hold}
            </button>
          </div>
        )}
      </section>
    );
  }
  if (!isVideo(job) && !job.purgedAt) return <InputPicture job={job} dim={status === 'canceled'} />;
  if (status === 'running' || status === 'queued') {
    return <Nothing icon="video" text={job.request?.previews ? w.job.noPreview : w.job.noPreviewOff} />;
  }
  return <Nothing icon={isVideo(job) ? 'video' : 'picture'} text={w.job.noPicture} />;
}

/** What it works on, as long as there is nothing that it made. */
function InputPicture({ job, dim }: { readonly job: Job; readonly dim: boolean }) {
  const w = words.value.job;
  const input = useInput(job);
  const [failed, setFailed] = useState(false);
  if (input.is !== 'there' || failed) return <Nothing icon="picture" text={input.is === 'loading' ? w.inputLoading : w.noPicture} />;
  return (
    <section class="panel clipped" aria-label={w.input}>
      <div class={`stage${dim ? ' dim' : ''}`}>
        <img src={input.url} alt={w.input} onError={() => setFailed(true)} />
        <span class="cap l">{w.input}</span>
      </div>
    </section>
  );
}

/** The preview, or the one that is held. A held one is kept as a copy: the watch lets go of what is no longer the last. */
function usePreview(preview: { readonly url: string; readonly frame: number } | undefined) {
  const [held, setHeld] = useState<{ readonly url: string; readonly frame: number } | undefined>(undefined);
  useEffect(() => () => (held ? URL.revokeObjectURL(held.url) : undefined), [held]);
  if (!preview && !held) return undefined;
  const hold = (on: boolean) => {
    if (!on || !preview) return setHeld(undefined);
    void fetch(preview.url)
      .then((answer) => answer.blob())
      .then((blob) => setHeld({ url: URL.createObjectURL(blob), frame: preview.frame }))
      .catch(() => {});
  };
  return { ...(held ?? preview!), held: held !== undefined, hold };
}

function Nothing({ icon, text }: { readonly icon: 'shield' | 'video' | 'picture'; readonly text: string }) {
  return (
    <section class="panel clipped" aria-label={words.value.job.preview}>
      <div class="stage none">
        <div>
          <Icon name={icon} />
          {text}
        </div>
      </div>
    </section>
  );
}

type Zoom = 'fit' | 'full';

function Compare({ job, url }: { readonly job: Job; readonly url: string }) {
  const w = words.value;
  const stage = useRef<HTMLDivElement>(null);
  const input = useInput(job);
  const [at, setAt] = useState(50);
  const [zoom, setZoom] = useState<Zoom>('fit');
  const [failed, setFailed] = useState(false);
  /** The URL that the browser could make nothing of; the next visit has another one. */
  const [broken, setBroken] = useState<string | undefined>(undefined);
  const result = job.result!;
  const video = result.mediaType.startsWith('video/');
  const { trim_frame_start: start } = job.request?.parameters ?? {};
  const trimmed = typeof start === 'number' ? start : 0;
  const before = useRef<HTMLVideoElement>(null);
  const after = useRef<HTMLVideoElement>(null);
  const compared = input.is === 'there' && !failed;
  const shape = { aspectRatio: result.width > 0 ? `${result.width} / ${result.height}` : undefined };
  const size = zoom === 'full' ? { width: `${result.width / devicePixelRatio}px`, height: `${result.height / devicePixelRatio}px` } : {};
  if (broken === url) return <Nothing icon={video ? 'video' : 'picture'} text={w.job.resultNotShown} />;
  return (
    <section class="panel clipped" aria-label={w.job.compare}>
      <div class={`frame ${zoom}`}>
        {/* What is wider than high fills the width; what is higher than wide is held to the height of the window. */}
        <div class="stage" ref={stage} style={{ ...shape, ...size, '--pos': compared ? at : 0 }}>
          {compared &&
            (video ? (
              <video
                ref={before}
                src={input.url}
                muted
                playsInline
                preload="auto"
                aria-label={w.job.input}
                onError={() => setFailed(true)}
              />
            ) : (
              <img src={input.url} alt={w.job.input} onError={() => setFailed(true)} />
            ))}
          {video ? (
            <video
              ref={after}
              class="after"
              src={url}
              playsInline
              preload="auto"
              aria-label={w.job.result}
              onError={() => setBroken(url)}
            />
          ) : (
            <img class="after" src={url} alt={w.job.result} onError={() => setBroken(url)} />
          )}
          {compared && (
            <>
              <input
                type="range"
                min="0"
                max="100"
                value={at}
                aria-label={w.job.divider}
                aria-valuetext={w.job.dividerText(at, 100 - at)}
                onInput={(event) => setAt(event.currentTarget.valueAsNumber)}
              />
              <span class="cap l">{w.job.input}</span>
              <span class="cap r">{w.job.result}</span>
              <div class="rule">
                <span class="knob">
                  <Icon name="divide" />
                </span>
              </div>
            </>
          )}
        </div>
      </div>
      <div class="player">
        {video ? (
          <Player result={after} input={before} frames={result.frames} seconds={result.durationSeconds} trimmed={trimmed} />
        ) : (
          <span class="quiet">{compared ? w.job.compare : input.is === 'loading' ? w.job.inputLoading : w.job.resultOnly}</span>
        )}
        <fieldset class="seg push" aria-label={w.job.zoom}>
          {(['fit', 'full'] as const).map((one) => (
            <button key={one} type="button" aria-pressed={zoom === one} onClick={() => setZoom(one)}>
              {w.job[one]}
            </button>
          ))}
        </fieldset>
      </div>
    </section>
  );
}
