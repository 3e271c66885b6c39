from .authoring import json_schema as json_schema
from .authoring import new_pipeline as new_pipeline
from .spec import Pipeline as Pipeline
from .spec import load_pipeline as load_pipeline
