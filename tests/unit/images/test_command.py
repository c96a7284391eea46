from clip_runc.images.command import arguments_of, key_of


def test_arguments_are_kept_until_there_are_too_many():
    assert key_of(["python3", "-c", "x"]) == ["python3", "-c", "x"]
    assert key_of([]) == []
    long = key_of(["a", "b" * 5000, "c"])
    assert long == ["a", "b" * 4095]
    assert len(key_of([""] * 1000)) == 256


def test_the_process_of_a_bundle():
    assert arguments_of({"process": {"args": ["sh", "-c", "true"]}}) == ["sh", "-c", "true"]
    assert arguments_of({"process": None}) == arguments_of({}) == []
    assert arguments_of({"process": {"args": "sh"}}) == []
