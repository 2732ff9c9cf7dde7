// The part of a target video that is worked on: what a file says of its frames, what people write, and what the job is asked for.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { movieFacts } from '../web/src/service/movie-facts.ts';
import { frameOf } from '../web/src/submit/frames.ts';
import { findings, webTest } from './web/browser.ts';

const u32 = (...numbers: number[]) =>
  Buffer.concat(numbers.map((n) => Buffer.from([n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255])));
const box = (type: string, ...parts: (Buffer | string)[]) => {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)));
  return Buffer.concat([u32(body.length + 8), Buffer.from(type, 'latin1'), body]);
};
const FTYP = box('ftyp', 'isom', u32(0x200), 'isommp41');
const MDAT = box('mdat', Buffer.alloc(64));

interface Track {
  readonly kind?: 'vide' | 'soun';
  readonly code?: string;
  readonly timescale?: number;
  /** Count and length of runs of frames. */
  readonly times?: readonly (readonly [number, number])[];
  /** What the table says that it has. */
  readonly entries?: number;
}

function track({ kind = 'vide', code = 'avc1', timescale = 12_800, times = [[7488, 512]], entries = times.length }: Track = {}): Buffer {
  return box(
    'trak',
    box('tkhd', Buffer.alloc(76), u32(1920 * 65_536, 1080 * 65_536)),
    box(
      'mdia',
      box('mdhd', u32(0, 0, 0, timescale, 1), u32(0)),
      box('hdlr', u32(0, 0), kind, Buffer.alloc(13)),
      box('minf', box('stbl', box('stsd', u32(0, 1), box(code, Buffer.alloc(78))), box('stts', u32(0, entries), u32(...times.flat())))),
    ),
  );
}

const film = (...tracks: Buffer[]) => Buffer.concat([FTYP, MDAT, box('moov', box('mvhd', Buffer.alloc(100)), ...tracks)]);
const facts = (bytes: Buffer) => movieFacts(new Blob([new Uint8Array(bytes)]));

describe('what a film says of itself', () => {
  test('its size, frames, pace, codec and sound, wherever its tables stand', async () => {
    const sound = track({ kind: 'soun', code: 'mp4a', timescale: 48_000, times: [[14_000, 1024]] });
    const expected = { width: 1920, height: 1080, seconds: 299.52, frames: 7488, framesPerSecond: 25, codec: 'H.264', sound: 'AAC' };
    assert.deepEqual(await facts(film(sound, track())), expected);
    const first = Buffer.concat([FTYP, box('moov', track(), sound), MDAT]);
    assert.deepEqual(await facts(first), expected);
    // Of more than 4 GiB, and up to the end of the file.
    const wide = Buffer.concat([FTYP, u32(1), Buffer.from('mdat'), u32(0, 24), Buffer.alloc(8), box('moov', track())]);
    assert.equal((await facts(wide))?.frames, 7488);
    const last = box('moov', track());
    last.writeUInt32BE(0, 0);
    assert.equal((await facts(Buffer.concat([FTYP, last])))?.frames, 7488);
  });

  test('no pace where frames are not as long as each other', async () => {
    const even = await facts(
      film(
        track({
          times: [
            [100, 512],
            [1, 700],
            [99, 513],
          ],
        }),
      ),
    );
    assert.equal(even?.frames, 200);
    assert.ok(even!.framesPerSecond! > 24);
    const uneven = await facts(
      film(
        track({
          times: [
            [100, 512],
            [100, 1024],
          ],
        }),
      ),
    );
    assert.deepEqual([uneven?.frames, uneven?.framesPerSecond, uneven?.seconds], [200, undefined, 12]);
  });

  test('nothing where it does not tell, or is not what it says', async () => {
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from('RIFF....WEBPVP8 not a film'),
      FTYP,
      Buffer.concat([FTYP, MDAT]),
      film(),
      film(track({ times: [] })),
      film(track({ timescale: 0 })),
      film(track({ kind: 'soun' })),
      Buffer.concat([FTYP, u32(4), Buffer.from('moov')]),
      film(track()).subarray(0, -900),
    ])
      assert.equal(await facts(bytes).catch(() => 'thrown'), undefined);
    // A table that says that it has more than there is.
    await assert.rejects(facts(film(track({ entries: 4_000_000_000 }))), RangeError);
  });
});

test('a place is a frame or a time, and nothing else', () => {
  const at = (text: string, fps: number | undefined = 25) => frameOf(text, fps);
  assert.deepEqual([at(''), at(' '), at('0'), at(' 250 '), at('999999999')], [undefined, undefined, 0, 250, 999_999_999]);
  assert.deepEqual([at('10.0'), at('0:10'), at('1:28.56'), at('1:00:00')], [250, 250, 2214, 90_000]);
  assert.equal(at('0:10', 30_000 / 1001), 300);
  for (const text of ['-1', '1e3', 'ten', '1:', ':5', '1:2:3:4', '1,5', '0x10', '9999999999']) assert.ok(Number.isNaN(at(text)), text);
  assert.ok(Number.isNaN(frameOf('0:10', undefined)), 'of no pace');
  assert.equal(frameOf('10', undefined), 10);
});

webTest('a target video is trimmed where it is chosen', {}, async ({ service, open }) => {
  const page = await open('/new');
  const target = page.locator('.panel', { has: page.getByRole('heading', { name: 'Target' }) });
  const choose = (name: string, bytes: Buffer) =>
    target.locator('input[type=file]').setInputFiles({ name, mimeType: 'video/mp4', buffer: bytes });
  await page
    .locator('.panel', { has: page.getByRole('heading', { name: 'Source faces' }) })
    .getByRole('textbox')
    .fill('face.jpg');
  await page.keyboard.press('Enter');
  await choose('interview-07.mp4', film(track()));
  await target.getByText('1920 × 1080, 25 fps, 5 min').waitFor();
  await target.getByText('7,488 frames, H.264').waitFor();
  const [start, end] = [target.getByLabel('Start'), target.getByLabel('End')];
  await target.getByText('all 7,488 frames').waitFor();
  assert.deepEqual([await start.getAttribute('placeholder'), await end.getAttribute('placeholder')], ['0:00.00', '4:59.52']);
  assert.deepEqual(await findings(page), []);

  await start.fill('0:10');
  await start.press('Tab');
  await target.getByText('7,238 of 7,488 frames').waitFor();
  assert.equal(await start.inputValue(), '0:10.00');
  await end.fill('5.0');
  await end.press('Enter');
  await target.getByText('Trim frame end: it has to lie behind the start.').waitFor();
  await end.fill('soon');
  await end.press('Tab');
  assert.equal(await end.getAttribute('aria-invalid'), 'true');
  await end.fill('500');
  await end.press('Tab');
  await target.getByText('250 of 7,488 frames').waitFor();
  assert.equal(await end.inputValue(), '0:20.00');
  // The request as code says the same.
  await page.locator('pre.code', { hasText: /"trim_frame_start": 250,\s*"trim_frame_end": 500/ }).waitFor();

  // It is said of this video, and of no other.
  await choose('another.mp4', film(track({ times: [[100, 512]] })));
  await target.getByText('all 100 frames').waitFor();
  assert.equal(await start.inputValue(), '');
  await start.fill('100');
  await start.press('Tab');
  await target.getByText('Trim frame start: it lies behind the end of the video, which has 100 frames.').waitFor();
  await start.fill('0:01');
  await start.press('Tab');
  await target.getByText('75 of 100 frames').waitFor();
  await page.getByRole('button', { name: 'Submit job' }).first().click();
  await page.waitForURL(/\/jobs\/job_/);
  const id = new URL(page.url()).pathname.split('/').at(-1);
  const job = (await (await fetch(`${service.baseUrl}/api/v1/jobs/${id}`)).json()) as { request: { parameters: object } };
  assert.deepEqual(job.request.parameters, { trim_frame_start: 25 });
});
