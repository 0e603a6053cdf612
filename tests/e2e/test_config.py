# SPDX-License-Identifier: MIT OR Apache-2.0
"""test_config.py - the configuration as a person meets it: files, environment, `blufio config`."""
import os
import stat

from harness import OWNER, ROOT, Blufio, World, main


def alone(text=None, **config):
    """A directory with a configuration and no fakes."""
    b = Blufio(config)
    if text is not None:
        b.write_config(text)
    return b


def test_set_keeps_comments_layout_mode():
    text = ('# my agent\n[agent]   # who\nname = "ann"   # a name\n\n'
            '[cost]\n  # per day\n  daily_budget_usd = 1.50  # dollars\n')
    b = alone(text)
    os.chmod(b.config_path, 0o640)
    rc, out, err = b.cli("config", "set", "cost.daily_budget_usd", "2.25")
    assert rc == 0 and "2.25" in out, err
    assert open(b.config_path).read() == text.replace("1.50", "2.25")
    assert stat.S_IMODE(os.stat(b.config_path).st_mode) == 0o640
    rc, out, _ = b.cli("config", "get", "cost.daily_budget_usd")
    assert rc == 0 and out.strip() == "2.25"
    rc, _, err = b.cli("config", "set", "agent.max_sessions", "7")
    assert rc == 0, err
    assert open(b.config_path).read().index("max_sessions = 7") < open(b.config_path).read().index("[cost]")
    rc, _, err = b.cli("config", "set", "log.level", "debug")
    assert rc == 0 and '[log]\nlevel = "debug"' in open(b.config_path).read(), err


def test_set_refuses_a_bad_result_and_changes_nothing():
    b = alone('[agent]\nname = "ann"\n')
    before = open(b.config_path).read()
    for key, value in (("agent.max_sessions", "0"), ("agent.max_sessions", "many"), ("log.level", "loud"),
                       ("cost.daily_budget_usd", "-1"), ("telegram.allowed_users", "@ann"), ("agent.naem", "x")):
        rc, out, err = b.cli("config", "set", key, value)
        assert rc in (64, 78) and err and "`" in err, (key, value, rc, err)
        assert open(b.config_path).read() == before


def test_secrets_are_masked_and_read_from_stdin():
    b = alone('[agent]\nname = "ann"\n')
    rc, out, err = b.cli("config", "set", "anthropic.api_key", "-", input="sk-ant-verysecret-0123456789\n")
    assert rc == 0 and "verysecret" not in out + err, err
    assert "verysecret" in open(b.config_path).read()
    for args in (("get", "anthropic.api_key"), ("show",), ("show", "--origin"), ("validate",)):
        rc, out, err = b.cli("config", *args)
        assert rc == 0 and "verysecret" not in out + err, args
    assert "***" in b.cli("config", "get", "anthropic.api_key")[1]
    rc, _, err = b.cli("config", "set", "anthropic.api_key", "-", input="\n")
    assert rc == 78 and "nothing was changed" in err
    assert "verysecret" in open(b.config_path).read()


def test_origin_and_environment():
    b = alone('[agent]\nname = "ann"\n[log]\nlevel = "warn"\n')
    rc, out, err = b.cli("config", "show", "--origin", env={"BLUFIO__LOG__LEVEL": "error", "ANTHROPIC_API_KEY": "sk-x-1234567"})
    assert rc == 0, err
    assert "BLUFIO__LOG__LEVEL" in out and "ANTHROPIC_API_KEY" in out and "default" in out
    assert "blufio.toml:2" in out and "1234567" not in out
    assert b.cli("config", "get", "log.level", env={"BLUFIO__LOG__LEVEL": "error"})[1].strip() == "error"
    rc, _, err = b.cli("config", "validate", env={"BLUFIO__LOG__LEVLE": "error"})
    assert rc == 0 and "BLUFIO__LOG__LEVLE" in err and "log.level" in err      # a warning, with the nearest


def test_first_file_found_wins():
    b = alone('[agent]\nname = "from-variable"\n')
    home = os.path.join(b.dir, "home")
    os.makedirs(home + "/.config/blufio")
    with open(home + "/.config/blufio/blufio.toml", "w") as f:
        f.write('[agent]\nname = "from-home"\n')
    with open(b.dir + "/other.toml", "w") as f:
        f.write('[agent]\nname = "from-option"\n')
    name = ("config", "get", "agent.name")
    assert b.cli("--config", b.dir + "/other.toml", *name)[1].strip() == "from-option"
    assert b.cli(*name)[1].strip() == "from-variable"
    # without the variable: ./blufio.toml (the command runs in b.dir), then the home directory
    assert b.cli(*name, env={"BLUFIO_CONFIG": None, "HOME": home})[1].strip() == "from-variable"
    os.rename(b.config_path, b.dir + "/gone.toml")
    assert b.cli(*name, env={"BLUFIO_CONFIG": None, "HOME": home})[1].strip() == "from-home"


def test_reference_is_generated():
    b = alone("")
    rc, out, err = b.cli("config", "keys", "--markdown")
    assert rc == 0, err
    assert out == open(os.path.join(ROOT, "docs/CONFIG.md")).read()


def test_system_prompt_waits_for_the_next_conversation():
    with World({"agent": {"system_prompt": "You are terse."}}) as w:
        w.say("say one")
        w.b.configure(agent={"system_prompt": "You are chatty."})
        assert w.b.cli("reload")[0] == 0
        w.say("say two")
        assert [r["body"]["system"][0]["text"] for r in w.ai.requests] == ["You are terse."] * 2
        w.say("/new")
        w.say("say three")
        assert w.ai.requests[-1]["body"]["system"][0]["text"] == "You are chatty."


def test_system_prompt_file_wins():
    with World({"agent": {"system_prompt": "inline", "system_prompt_file": "soul.md"}}, start=False) as w:
        with open(w.b.dir + "/soul.md", "w") as f:
            f.write("# Soul\nFrom the file.\n")
        w.b.start()
        assert any("system_prompt" in line and "warn" in line.lower() for line in w.b.log_lines())
        w.say("say hi")
        assert w.ai.requests[0]["body"]["system"][0]["text"] == "# Soul\nFrom the file."


def test_serves_with_two_variables_and_no_file():
    with World(start=False) as w:
        os.unlink(w.b.config_path)
        w.b.env.update(BLUFIO_CONFIG=None, ANTHROPIC_API_KEY=w.ai.api_key, BLUFIO__TELEGRAM__BOT_TOKEN=w.tg.token,
                       BLUFIO__TELEGRAM__API_BASE=w.tg.url, BLUFIO__ANTHROPIC__BASE_URL=w.ai.url,
                       BLUFIO__LOG__FORMAT="json", BLUFIO__TELEGRAM__POLL_TIMEOUT="5")
        w.b.start()
        w.tg.send_text(OWNER, "say hi")                  # nobody is allowed until paired
        w.wait(lambda: w.tg.texts(OWNER), "the pairing offer")
        assert "blufio pair" in w.tg.texts(OWNER)[0] and not w.ai.requests


def test_reload_keeps_the_last_good_configuration():
    with World() as w:
        with open(w.b.dir + "/good.toml", "w") as f:
            f.write('[storage]\ndatabase_path = "%s"\n' % w.b.db_path)
        w.b.write_config("[agent\nname = broken")
        rc, _, err = w.b.cli("--config", w.b.dir + "/good.toml", "reload")
        assert rc != 0 and "blufio.toml:1" in err, err
        assert w.say("say still here") == "still here"
        w.b.write_config()


if __name__ == "__main__":
    main(globals())
