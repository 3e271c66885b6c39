from .finding import find_task as find_task
from .metrics import METRICS as METRICS
from .metrics import Metric as Metric
from .metrics import metric as metric
from .spec import TaskSpec as TaskSpec
from .task import Task as Task
