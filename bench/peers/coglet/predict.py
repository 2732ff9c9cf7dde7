"""The least that coglet runs: an answer of two letters, nothing loaded."""


class Predictor:
    def setup(self) -> None:
        pass

    def predict(self, text: str = "") -> str:
        return "ok" + text
