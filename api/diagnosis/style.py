"""The page's style: light or dark as the reader's system is, and fit to be printed."""

_CURVES = (
    ("#2f6fde", "#7aa7ff"),
    ("#d9480f", "#ff9a5c"),
    ("#2b8a3e", "#69db7c"),
    ("#9c36b5", "#da77f2"),
    ("#0b7285", "#3bc9db"),
    ("#a61e4d", "#f783ac"),
    ("#806000", "#ffd43b"),
    ("#495057", "#ced4da"),
)
_LIGHT = "".join(f"--c{i}:{light};" for i, (light, _) in enumerate(_CURVES))
_DARK = "".join(f"--c{i}:{dark};" for i, (_, dark) in enumerate(_CURVES))
_CLASSES = "".join(f".line.c{i}{{stroke:var(--c{i})}}.b{i}{{background:var(--c{i})}}" for i in range(len(_CURVES)))

STYLE = (
    """
:root{color-scheme:light dark;--page:#fff;--panel:#f7f7f5;--ink:#1c1d21;--soft:#63666e;--rule:#dfdfda;--mid:#efefec;
--warm:#c2410c;--cold:#1d5fc4;--bad:#c01f2f;--warning:#a85b00;--ok:#2b7a3b;"""
    + _LIGHT
    + """}
@media (prefers-color-scheme:dark){:root{--page:#141518;--panel:#1c1e22;--ink:#e9e9ec;--soft:#9a9da6;--rule:#33363c;
--mid:#26282d;--warm:#ff9050;--cold:#74a8ff;--bad:#ff6b78;--warning:#ffb454;--ok:#6fd083;"""
    + _DARK
    + """}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:36px 28px 64px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}h2{font-size:18px;margin:40px 0 4px}
h3{font-size:15px;margin:0 0 8px}
p{margin:0 0 12px}.note{color:var(--soft);max-width:80ch}code{font:13px ui-monospace,"DejaVu Sans Mono",monospace}
.chips span{display:inline-block;margin:10px 8px 0 0;padding:2px 12px;border-radius:12px;border:1px solid var(--rule);
font-size:13px}
.chips .bad,.badge.bad{color:var(--bad)}.chips .warning,.badge.warning{color:var(--warning)}
.chips .ok,.badge.ok{color:var(--ok)}
.remarks{list-style:none;margin:12px 0;padding:0}
.remarks li{display:grid;grid-template-columns:76px 170px 1fr;gap:14px;padding:10px 14px;background:var(--panel);
border-left:4px solid var(--rule);margin-bottom:6px;border-radius:0 6px 6px 0}
.remarks li.bad{border-color:var(--bad)}.remarks li.warning{border-color:var(--warning)}
.remarks li.ok{border-color:var(--ok)}
.badge{font-weight:600;font-size:13px}.who{font-weight:600;overflow-wrap:anywhere}.remedy{display:block;color:var(--soft)}
.remedy::before{content:"→ "}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--least)),1fr));gap:18px;margin-top:14px}
.panel{background:var(--panel);border-radius:8px;padding:16px;min-width:0}.panel .note{font-size:13px;margin:10px 0 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
table.figures{width:100%;margin-top:10px}.figures th,.figures td{padding:6px 10px;text-align:right;
border-bottom:1px solid var(--rule);white-space:nowrap}
.figures th{font-size:13px;color:var(--soft);font-weight:500}
.figures th:first-child,.figures td:first-child{text-align:left}
.heat th{font-size:13px;font-weight:500;color:var(--soft);padding:2px 8px;white-space:nowrap}
.heat th[scope=row]{text-align:right}.heat td{min-width:54px;height:32px;text-align:center;font-size:13px;
border:1px solid var(--panel);border-radius:4px}
.heat td.none{background:none}
.dense{width:100%}.dense td{min-width:14px;height:22px;padding:0}
.dense th[scope=col]{padding:0 1px;font-size:10px;max-width:18px}
.dense th[scope=col] span{writing-mode:vertical-rl}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--rule);stroke-width:1}.limit{stroke:var(--warning);stroke-width:1.5;stroke-dasharray:5 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.legend{margin:8px 0 0;font-size:13px}.legend span{margin-right:18px;white-space:nowrap}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
@media print{body{max-width:none;padding:0}.panel,.remarks li{break-inside:avoid}*{print-color-adjust:exact}}
@media (max-width:640px){.remarks li{grid-template-columns:1fr}}
"""
    + _CLASSES
)
