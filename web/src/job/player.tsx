// Plays two videos in step. Always true: the result leads; the input follows its time and is put right when it is off by more than half a frame.
import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { number, timecode } from '../format.ts';
import { IconButton } from '../parts/small.tsx';
import { words } from '../words/words.ts';

interface PlayerProps {
  readonly result: RefObject<HTMLVideoElement | null>;
  readonly input: RefObject<HTMLVideoElement | null>;
  readonly frames: number;
  readonly seconds: number;
  /** Frames of the input before the result's first one. */
  readonly trimmed: number;
}

export function Player({ result, input, frames, seconds, trimmed }: PlayerProps) {
  const w = words.value;
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(false);
  const frame = frames > 0 && seconds > 0 ? seconds / frames : 1 / 25;

  useEffect(() => {
    const video = result.current;
    if (!video) return;
    let drawing = 0;
    const follow = () => {
      setAt(video.currentTime);
      const other = input.current;
      const due = video.currentTime + trimmed * frame;
      if (other && other.readyState > 0 && Math.abs(other.currentTime - due) > frame / 2) other.currentTime = due;
      if (!video.paused) drawing = requestAnimationFrame(follow);
    };
    const began = () => {
      setPlaying(true);
      void input.current?.play().catch(() => {});
      follow();
    };
    const ended = () => {
      setPlaying(false);
      input.current?.pause();
      cancelAnimationFrame(drawing);
      follow();
    };
    video.addEventListener('play', began);
    video.addEventListener('pause', ended);
    video.addEventListener('seeked', follow);
    video.addEventListener('loadedmetadata', follow);
    return () => {
      cancelAnimationFrame(drawing);
      video.removeEventListener('play', began);
      video.removeEventListener('pause', ended);
      video.removeEventListener('seeked', follow);
      video.removeEventListener('loadedmetadata', follow);
    };
  }, [result, input, frame, trimmed]);

  const seek = (to: number) => {
    const video = result.current;
    if (!video) return;
    const end = Number.isFinite(video.duration) ? video.duration : seconds;
    video.currentTime = Math.min(Math.max(0, to), Math.max(0, end - frame / 2));
    setAt(video.currentTime);
  };
  // To the middle of a frame, where no rounding shows its neighbour.
  const current = Math.min(frames - 1, Math.floor(at / frame + 1e-6));
  const step = (by: number) => {
    result.current?.pause();
    seek((current + by + 0.5) * frame);
  };
  const toggle = () => {
    const video = result.current;
    if (!video) return;
    if (video.paused) void video.play().catch(() => {});
    else video.pause();
  };
  return (
    <>
      <IconButton icon={playing ? 'pause' : 'play'} label={playing ? w.job.pause : w.job.play} press={toggle} />
      <span class="timecode">{timecode(at)}</span>
      <input
        type="range"
        min="0"
        max={Math.max(seconds, frame)}
        step={frame}
        value={at}
        aria-label={w.job.seek}
        aria-valuetext={timecode(at)}
        onInput={(event) => seek(event.currentTarget.valueAsNumber)}
      />
      <span class="quiet nowrap">{w.job.frameOf(number(current + 1), number(frames))}</span>
      <IconButton icon="left" label={w.job.frameBack} press={() => step(-1)} />
      <IconButton icon="right" label={w.job.frameForward} press={() => step(1)} />
    </>
  );
}
