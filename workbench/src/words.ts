// What the page says, in English and Chinese. An element remembers which message it shows (data-say), so changing the
// language rewrites the page in place and nothing that was typed or computed is lost.

const en = {
  translate: "Translate",
  classify: "Classify",
  tasks: "Applications",
  lead_here: "Runs on this machine. Your text stays here.",
  lead_there: "Runs on {host}. Your text goes there and nowhere else.",
  skip: "Skip to the text field",
  theme_light: "Change to light",
  theme_dark: "Change to dark",
  language: "显示中文",
  from: "From",
  to: "Into",
  detect: "Auto-detect",
  other: "The other",
  swap: "Swap the languages",
  alternatives: "Alternatives",
  only_best: "Best only",
  best_of: "{n} versions",
  source_label: "Text to translate",
  source_placeholder: "Type or paste a text…",
  classify_label: "Texts to classify, one per line",
  result_label: "Translation",
  result_empty: "The translation appears here.",
  run_translate: "Translate",
  run_classify: "Classify",
  stop: "Stop",
  working: "Working…",
  clear: "Clear",
  copy: "Copy",
  copied: "Copied",
  copy_failed: "The browser did not allow copying. Select the text and press Ctrl+C.",
  copy_table: "Copy as a table",
  characters: "{n} characters",
  characters_of: "{n} of {most} characters",
  texts_of: "{n} of {most} texts",
  one_text: "1 text",
  many_texts: "{n} texts",
  direction: "{from} → {to}",
  certainty: "Certainty {p}",
  certainty_hint: "The mean probability that the model gave to each piece of its output.",
  seconds: "{s} s",
  milliseconds: "{s} ms",
  more_versions: "Other versions",
  examples: "Examples",
  notice: "Written by a machine. It can be wrong: check it before you use it. Certainty is the model's own view, not a measure of truth.",
  classify_notice: "Labelled by a machine. It can be wrong: check it before you use it. Probabilities are the model's own view.",
  text: "Text",
  label: "Label",
  probability: "Probability",
  none_label: "no label",
  out_of_scope: "out of scope",
  results: "Results",
  table_empty: "Each text gets a label here, with its probability.",
  model: "Model",
  about_model: "About this model",
  task: "Task",
  task_translate: "Translation",
  task_classify: "Classification",
  languages: "Languages",
  labels: "Labels",
  size: "Size",
  made: "Made",
  measured: "Measured on texts it had not seen",
  measured_hint: "Band: 95 % confidence interval. ○ a simple baseline on the same texts.",
  figure_set: "{set}, {n} examples",
  accuracy: "Accuracy",
  macro_f1: "Macro F1",
  micro_f1: "Micro F1",
  in_scope_accuracy: "Accuracy in scope",
  out_of_scope_recall: "Out-of-scope recall",
  value_interval: "{value}, 95 % interval {low} to {high}",
  close: "Close",
  not_measured: "This model has no report card: nobody has measured it.",
  card: "Read the model card",
  no_card: "This model has no card.",
  loading_models: "Asking the server for its models…",
  no_model_translate: "No translation model is loaded",
  no_model_classify: "No classification model is loaded",
  no_model_help: "Train one with “inkstone train”, then start the server with “inkstone serve --models DIR”.",
  try_again: "Try again",
  key_title: "This server asks for an API key",
  key_help: "The person who runs it can give you one. It is kept in this tab only and forgotten when you close it.",
  key_label: "API key",
  key_enter: "Open",
  key_wrong: "That key was not accepted. Check it and try again.",
  fail_network: "The server cannot be reached",
  fail_network_help: "Is “inkstone serve” still running? Start it again, then try once more.",
  fail_busy: "The server is busy",
  fail_busy_help: "Too many requests are waiting. Try again in {s} s.",
  fail_request: "This could not be done",
  fail_server: "Something went wrong inside the server",
  fail_server_help: "It is not your text's fault. The server's log says what happened.",
  fail_too_many: "That is {n} lines; at most {most} fit in one go. Do it in parts.",
  fail_too_long: "That is {n} characters; at most {most} fit in one go. Do it in parts.",
  fail_line_long: "Line {line} has {n} characters; a line takes at most {most}. Break it up.",
  nothing: "There is no text yet. Type something, or choose an example.",
};

export type Word = keyof typeof en;

export function isWord(key: string): key is Word {
  return Object.hasOwn(en, key);
}

const zh: Record<Word, string> = {
  translate: "翻译",
  classify: "分类",
  tasks: "应用",
  lead_here: "在本机运行，文本不会离开这台机器。",
  lead_there: "在 {host} 上运行，文本只会发送到那里。",
  skip: "跳到文本输入框",
  theme_light: "切换到浅色",
  theme_dark: "切换到深色",
  language: "Show in English",
  from: "原文",
  to: "译成",
  detect: "自动检测",
  other: "另一种语言",
  swap: "交换语言",
  alternatives: "备选译文",
  only_best: "仅最佳",
  best_of: "{n} 种译文",
  source_label: "要翻译的文本",
  source_placeholder: "输入或粘贴文本……",
  classify_label: "要分类的文本，每行一条",
  result_label: "译文",
  result_empty: "译文会显示在这里。",
  run_translate: "翻译",
  run_classify: "分类",
  stop: "停止",
  working: "正在处理……",
  clear: "清空",
  copy: "复制",
  copied: "已复制",
  copy_failed: "浏览器不允许复制。请选中文字后按 Ctrl+C。",
  copy_table: "复制为表格",
  characters: "{n} 个字符",
  characters_of: "{n} / {most} 个字符",
  texts_of: "{n} / {most} 条文本",
  one_text: "1 条文本",
  many_texts: "{n} 条文本",
  direction: "{from} → {to}",
  certainty: "把握 {p}",
  certainty_hint: "模型对其输出的每个片段所给概率的平均值。",
  seconds: "{s} 秒",
  milliseconds: "{s} 毫秒",
  more_versions: "其他译文",
  examples: "示例",
  notice: "译文由机器生成，可能有误，使用前请核对。“把握”只是模型自己的看法，不代表译文正确。",
  classify_notice: "标签由机器给出，可能有误，使用前请核对。概率只是模型自己的看法。",
  text: "文本",
  label: "标签",
  probability: "概率",
  none_label: "无标签",
  out_of_scope: "超出范围",
  results: "结果",
  table_empty: "每条文本的标签和概率会显示在这里。",
  model: "模型",
  about_model: "关于这个模型",
  task: "任务",
  task_translate: "翻译",
  task_classify: "分类",
  languages: "语言",
  labels: "标签数",
  size: "大小",
  made: "制作日期",
  measured: "在未见过的文本上测得",
  measured_hint: "色带为 95% 置信区间；○ 为同一批文本上的简单基线。",
  figure_set: "{set}，{n} 例",
  accuracy: "准确率",
  macro_f1: "宏平均 F1",
  micro_f1: "微平均 F1",
  in_scope_accuracy: "域内准确率",
  out_of_scope_recall: "域外召回率",
  value_interval: "{value}，95% 置信区间 {low} 至 {high}",
  close: "关闭",
  not_measured: "这个模型没有成绩单：还没有人测量过它。",
  card: "阅读模型说明",
  no_card: "这个模型没有说明。",
  loading_models: "正在向服务器查询模型……",
  no_model_translate: "没有加载翻译模型",
  no_model_classify: "没有加载分类模型",
  no_model_help: "请先用 “inkstone train” 训练模型，再用 “inkstone serve --models 目录” 启动服务器。",
  try_again: "重试",
  key_title: "这台服务器需要 API 密钥",
  key_help: "请向服务器的管理者索取。密钥只保存在当前标签页，关闭后即被忘记。",
  key_label: "API 密钥",
  key_enter: "进入",
  key_wrong: "密钥不正确，请核对后重试。",
  fail_network: "无法连接服务器",
  fail_network_help: "“inkstone serve” 还在运行吗？请重新启动后再试。",
  fail_busy: "服务器繁忙",
  fail_busy_help: "等待的请求太多，请在 {s} 秒后重试。",
  fail_request: "无法完成",
  fail_server: "服务器内部出错",
  fail_server_help: "不是您的文本有问题。服务器日志里有出错的位置。",
  fail_too_many: "共有 {n} 行，一次最多 {most} 行，请分批处理。",
  fail_too_long: "共有 {n} 个字符，一次最多 {most} 个，请分批处理。",
  fail_line_long: "第 {line} 行有 {n} 个字符，每行最多 {most} 个，请拆开。",
  nothing: "还没有文本。请输入，或选一个示例。",
};

export type Tongue = "en" | "zh";
type Arguments = Record<string, string | number>;

let tongue: Tongue = "en";

export function currentTongue(): Tongue {
  return tongue;
}

/** The message in the current language; {names} are filled in, numbers written the local way. */
export function word(key: Word, values: Arguments = {}): string {
  const message = (tongue === "zh" ? zh : en)[key];
  return message.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/** Show a message as an element's text, or as one of its attributes, now and in every later language. */
export function say<Made extends Element>(made: Made, key: Word, values: Arguments = {}, attribute = ""): Made {
  const said = JSON.parse(made.getAttribute("data-say") ?? "{}") as Record<string, [Word, Arguments]>;
  said[attribute] = [key, values];
  made.setAttribute("data-say", JSON.stringify(said));
  write(made, attribute, key, values);
  return made;
}

function write(made: Element, attribute: string, key: Word, values: Arguments): void {
  if (attribute) made.setAttribute(attribute, word(key, values));
  else made.textContent = word(key, values);
}

export function speak(chosen: Tongue): void {
  tongue = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  for (const made of document.querySelectorAll("[data-say]")) {
    const said = JSON.parse(made.getAttribute("data-say") ?? "{}") as Record<string, [Word, Arguments]>;
    for (const [attribute, [key, values]] of Object.entries(said)) write(made, attribute, key, values);
  }
  document.dispatchEvent(new CustomEvent("tongue"));
}

export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(tongue, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

export function percent(share: number): string {
  return new Intl.NumberFormat(tongue, { style: "percent", maximumFractionDigits: share < 0.0995 ? 1 : 0 }).format(share);
}

/** The name of a language in the page's language: "zh" is "Chinese", or "中文". */
export function languageName(code: string): string {
  try {
    return new Intl.DisplayNames([tongue], { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

/** Says how long something took: milliseconds below a second. */
export function sayTime<Made extends Element>(made: Made, seconds: number): Made {
  if (seconds < 1) return say(made, "milliseconds", { s: number(Math.max(1, seconds * 1000)) });
  return say(made, "seconds", { s: number(seconds, 1) });
}

/** Says where a text goes: this page cannot know more than its own address. */
export function sayWhere<Made extends Element>(made: Made): Made {
  const host = location.hostname;
  const here = host === "localhost" || host === "[::1]" || /^127\./.test(host);
  return here ? say(made, "lead_here") : say(made, "lead_there", { host });
}
