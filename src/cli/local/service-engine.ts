// What the local commands know of the engine that the configuration chose: its words, and the Python that examines media beside it. That is
// FaceFusion's own where that is the engine, so that a machine that has one needs no second environment.
import type { Config } from '../../config.ts';
import type { PythonOptions } from './python.ts';

export function servicePython({ python, facefusion }: Config): Pick<PythonOptions, 'given' | 'origin'> {
  if (python !== undefined || !facefusion) return { given: python };
  const { installed } = facefusion;
  return {
    given: facefusion.python,
    origin: {
      name: installed === undefined ? 'FACEFUSION_PYTHON' : `the Python of ${installed}`,
      instead:
        installed === undefined ? 'have one made by `ffjobs engine install facefusion`' : 'run `ffjobs engine install facefusion` again',
      packages: (missing, version) => missing.map((module) => packageOf(module, version)),
    },
  };
}

/** PyAV as the workers are tested with it; the last one for Python 3.10 is older. */
export function packageOf(module: string, pythonVersion: string): string {
  if (module === 'av') return pythonVersion.startsWith('3.10.') ? 'av==17.1.0' : 'av==18.1.0';
  return module === 'cv2' ? 'opencv-python-headless' : module;
}

/** Which engine, and why that one. */
export function engineInWords({ engine, engineMode, facefusion }: Config): string {
  if (!facefusion) return engine;
  const which = facefusion.installed ? `${facefusion.installed}, installed in` : 'FaceFusion in';
  return `${engine} (${which} ${facefusion.home}${engineMode === 'subprocess' ? ', a process for each job' : ''})`;
}
