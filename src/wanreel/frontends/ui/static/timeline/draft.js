// A storyboard as it is edited, and from and to the form in which the server has it. Draws nothing.
export const STARTS = ["previous", "text", "keyframe", "anchor"];
export const TRANSITIONS = ["cut", "crossfade"];

export const blank = () => ({ title: "", model: "", seconds: null, colour_match: 0, rest: {}, scenes: [{ prompt: "", start: "text", seconds: null, transition: "cut", number: 0 }] });

const EDITED = ["prompt", "start", "seconds", "transition", "keyframe", "edit_prompt"];

//: number: which scene of the server's this one is, from 1; 0 for none yet.
export function draftOf(state) {
  const { model = "", seconds = null, colour_match: colours = 0, transition = "cut", ...rest } = state.settings;
  const scenes = state.scenes.map(({ number, scene, start }) => ({
    number, start, prompt: scene.prompt, seconds: scene.seconds ?? null, transition: scene.transition ?? transition, keyframe: scene.keyframe ?? null, edit_prompt: scene.edit_prompt ?? "",
    rest: Object.fromEntries(Object.entries(scene).filter(([name]) => !EDITED.includes(name))),
  }));
  return { title: state.title, model, seconds, colour_match: colours, rest, scenes };
}

export function bodyOf(draft) {
  const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== undefined));
  return {
    ...draft.rest,
    ...given({ title: draft.title, model: draft.model, seconds: draft.seconds, colour_match: draft.colour_match }),
    scenes: draft.scenes.map((scene) => ({
      ...scene.rest,
      ...given({ prompt: scene.prompt, start: scene.start, seconds: scene.seconds, transition: scene.transition, keyframe: scene.start === "keyframe" ? scene.keyframe : null, edit_prompt: scene.start === "text" ? "" : scene.edit_prompt }),
    })),
  };
}
